//! Commands that change counters and reservations, each with its outcome and its errors. Those of model calls are in
//! `call_commands`.

use chrono::{DateTime, TimeDelta, Utc};
use domain::entitlements::Decision;
use domain::features::FeatureId;
use domain::idempotency::IdempotencyKey;
use domain::usage::{Hold, HoldId, HoldRefusal, HoldStatus};
use domain::users::UserId;
use ports::entitlements::Meter;
use ports::store::StoreError;
use ports::usage::{GrantedReservation, KeyOfUser};
use thiserror::Error;
use uuid::Uuid;

/// A command of the group commit: which rows it needs, and what it results in.
pub trait UsageCommand: Send + Sync + 'static {
    type Outcome: Send + Sync + 'static;
    type Error: From<CommitError> + Send + Sync + 'static;

    /// What selects the lane: the user, or the reservation where the user is not known yet.
    fn lane_key(&self) -> Uuid;

    /// The meter, where it is known beforehand: the feature of a reservation is stored in its row, but that of a model
    /// call is always the same.
    fn meter(&self) -> Option<Meter>;

    fn reservation_id(&self) -> Option<HoldId> {
        None
    }

    /// The conversation whose row is written with the command.
    fn session_id(&self) -> Option<Uuid> {
        None
    }

    /// The idempotency key under which a grant is stored.
    fn idempotency_key(&self) -> Option<KeyOfUser<'_>> {
        None
    }
}

/// The result of a command that a batch has tried.
pub type CommandResult<C> = Result<<C as UsageCommand>::Outcome, UndecidedCommand<<C as UsageCommand>::Error>>;

/// Why a command has no outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UndecidedCommand<E> {
    Error(E),
    /// Another transaction has locked one of its rows: to be retried with a wait.
    Busy,
    /// It would move this user's tokens, whose lock comes before all others: to be retried for that user alone.
    NeedsTokens(UserId),
}

/// A use that is requested. `amount` is positive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRequest {
    /// The charged user, to whom the idempotency key belongs.
    pub user_id: UserId,
    pub feature_id: FeatureId,
    pub amount: i64,
    pub idempotency_key: IdempotencyKey,
    /// The API key of the request, for the event.
    pub api_key_id: Option<Uuid>,
}

impl UsageRequest {
    pub(super) fn meter(&self) -> Meter {
        Meter { user_id: self.user_id, feature_id: self.feature_id.clone() }
    }

    pub(super) const fn key_of_user(&self) -> KeyOfUser<'_> {
        KeyOfUser { user_id: self.user_id, key: &self.idempotency_key }
    }
}

/// Uses the amount at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumeCommand(pub UsageRequest);

/// A refusal is an outcome with a decision, not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumeOutcome {
    pub decision: Decision,
    /// Whether this is the first outcome again.
    pub replayed: bool,
}

/// Reserves the amount for `ttl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReserveCommand {
    pub request: UsageRequest,
    pub ttl: TimeDelta,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReserveOutcome {
    Reserved {
        reservation: GrantedReservation,
        decision: Decision,
        /// Whether this is the first outcome again.
        replayed: bool,
    },
    Refused(Decision),
}

/// Whose reservations the caller may change. One of another user is answered as unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservationOwner {
    User(UserId),
    Any,
}

impl ReservationOwner {
    pub(super) fn is(self, user_id: UserId) -> bool {
        match self {
            Self::User(owner) => owner == user_id,
            Self::Any => true,
        }
    }
}

/// Changes a reservation that was made by a `ReserveCommand`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeReservationCommand {
    pub reservation_id: HoldId,
    pub owner: ReservationOwner,
    pub action: ReservationAction,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReservationAction {
    /// The amount that was really used.
    Settle(i64),
    Release,
    /// Reserve `amount` in total from now on, if that is more, and until `ttl` from now, if that is later.
    Extend {
        amount: Option<i64>,
        ttl: TimeDelta,
    },
}

/// A changed reservation, and the numbers of its counter. An extension that was refused has changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservationChanged {
    pub reservation: Hold,
    pub decision: Decision,
    /// Whether the same was done before.
    pub replayed: bool,
}

/// Releases a reservation of any kind if its time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpireReservationCommand {
    pub reservation_id: HoldId,
    pub user_id: UserId,
}

impl UsageCommand for ConsumeCommand {
    type Outcome = ConsumeOutcome;
    type Error = ConsumeError;

    fn lane_key(&self) -> Uuid {
        self.0.user_id.0
    }

    fn meter(&self) -> Option<Meter> {
        Some(self.0.meter())
    }

    fn idempotency_key(&self) -> Option<KeyOfUser<'_>> {
        Some(self.0.key_of_user())
    }
}

impl UsageCommand for ReserveCommand {
    type Outcome = ReserveOutcome;
    type Error = ConsumeError;

    fn lane_key(&self) -> Uuid {
        self.request.user_id.0
    }

    fn meter(&self) -> Option<Meter> {
        Some(self.request.meter())
    }

    fn idempotency_key(&self) -> Option<KeyOfUser<'_>> {
        Some(self.request.key_of_user())
    }
}

impl UsageCommand for ChangeReservationCommand {
    type Outcome = ReservationChanged;
    type Error = ReservationError;

    fn lane_key(&self) -> Uuid {
        match self.owner {
            ReservationOwner::User(user_id) => user_id.0,
            ReservationOwner::Any => self.reservation_id.0,
        }
    }

    fn meter(&self) -> Option<Meter> {
        None
    }

    fn reservation_id(&self) -> Option<HoldId> {
        Some(self.reservation_id)
    }
}

impl UsageCommand for ExpireReservationCommand {
    type Outcome = ();
    type Error = ReservationError;

    fn lane_key(&self) -> Uuid {
        self.user_id.0
    }

    fn meter(&self) -> Option<Meter> {
        None
    }

    fn reservation_id(&self) -> Option<HoldId> {
        Some(self.reservation_id)
    }
}

/// Why a command was not committed, or is not known to be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommitError {
    #[error("too many requests are waiting to be counted")]
    QueueFull,
    #[error("the same counter is changed by too many others")]
    Contended,
    #[error("the database is away: {0}")]
    Away(String),
    #[error("the outcome of a commit is not known: {0}")]
    InDoubt(String),
    #[error("a fault of ours: {0}")]
    Fault(String),
}

impl From<StoreError> for CommitError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict | StoreError::Busy => Self::Contended,
            StoreError::Unavailable(why) => Self::Away(why),
            StoreError::InDoubt(why) => Self::InDoubt(why),
            other => Self::Fault(other.to_string()),
        }
    }
}

/// Which part of a meter does not exist.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnknownMeter {
    #[error("there is no such user")]
    User,
    #[error("there is no feature `{0}`")]
    Feature(FeatureId),
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConsumeError {
    #[error(transparent)]
    Unknown(#[from] UnknownMeter),
    #[error("the feature `{0}` is had or not, so it is used one at a time")]
    NotMetered(FeatureId),
    #[error("this idempotency key was used for something else")]
    KeyReused,
    #[error(transparent)]
    Commit(#[from] CommitError),
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReservationError {
    #[error("there is no such reservation")]
    Unknown,
    /// With the settled amount, if it was settled.
    #[error("the reservation is {} already", .0.as_str())]
    Ended(HoldStatus, Option<i64>),
    #[error("a counter ends at {}", i64::MAX)]
    CounterFull,
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl ReservationError {
    pub(super) const fn of(refusal: HoldRefusal, reservation: &Hold) -> Self {
        match refusal {
            HoldRefusal::Ended(status) => Self::Ended(status, reservation.settled),
            HoldRefusal::CounterFull => Self::CounterFull,
        }
    }
}

/// How a batch treats rows that another transaction has locked, and payments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Leave busy counters and payments to a later try.
    SkipLocked,
    /// Wait for busy counters; leave payments to a later try.
    Wait,
    /// One user's commands, with the user's row locked first: wait, and spend tokens.
    WaitAndSpend(UserId),
}

/// When a reservation that is made or extended now ends.
pub(super) fn ends_at(now: DateTime<Utc>, ttl: TimeDelta) -> DateTime<Utc> {
    now.checked_add_signed(ttl).unwrap_or(now)
}
