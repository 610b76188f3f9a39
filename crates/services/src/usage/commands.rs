//! Commands: what is requested of the counters, and the outcomes.

use chrono::{DateTime, TimeDelta, Utc};
use domain::ai::{ModelId, ProviderId};
use domain::api_keys::KeyBudgets;
use domain::entitlements::Decision;
use domain::features::FeatureId;
use domain::idempotency::IdempotencyKey;
use domain::usage::{CallPhase, CallTerms, Hold, HoldId, HoldRefusal, HoldStatus, KeyLimitReached};
use domain::users::UserId;
use ports::entitlements::Meter;
use ports::store::StoreError;
use ports::usage::{CallResult, KeptHold, KeyOfUser};
use thiserror::Error;
use uuid::Uuid;

/// A use that is requested, now or as a reservation. `amount` is positive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumeCommand {
    /// The charged user, to whom the idempotency key belongs.
    pub user_id: UserId,
    pub feature_id: FeatureId,
    pub amount: i64,
    pub key: IdempotencyKey,
    /// The API key of the request, for the event.
    pub api_key_id: Option<Uuid>,
    /// If set, the amount is reserved for so long instead of used at once.
    pub hold_for: Option<TimeDelta>,
    /// Set for a reservation of a model call: one unit of the feature, and beyond the limit the tokens that the call
    /// can use. Its idempotency key is not stored, since every call has one of its own.
    pub call: Option<Box<ModelCallTerms>>,
}

/// What a call of a model can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelCallTerms {
    /// The id that its reservation gets, where that is known beforehand.
    pub hold_id: Option<HoldId>,
    pub terms: CallTerms,
    /// Model tokens, input and output: the most.
    pub tokens: i64,
    /// The budgets that the use of its API key counts towards; empty without an API key.
    pub budgets: KeyBudgets,
}

impl ConsumeCommand {
    pub fn meter(&self) -> Meter {
        Meter { user_id: self.user_id, feature_id: self.feature_id.clone() }
    }
}

/// A change of a reservation.
#[derive(Clone, Debug, PartialEq)]
pub struct HoldCommand {
    pub hold_id: HoldId,
    pub whose: HoldOwner,
    pub action: HoldAction,
}

/// Whose reservations the caller may change. One of another user is answered as unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldOwner {
    User(UserId),
    Any,
}

#[derive(Clone, Debug, PartialEq)]
pub enum HoldAction {
    /// The amount that was really used.
    Settle(i64),
    Release,
    /// Reserve `amount` in total from now on, if that is more, and until `ttl` from now, if that is later.
    Extend {
        amount: Option<i64>,
        ttl: TimeDelta,
    },
    /// Release it if its time is over.
    Expire,
    /// The progress of a call, for the sweep if its process is gone: its phase, its provider, and that it goes on for
    /// `ttl` from now. With `growth`, more is reserved, all of it or nothing.
    Mark {
        phase: CallPhase,
        provider: ProviderId,
        model: ModelId,
        delivered_tokens: u64,
        growth: Option<HoldGrowth>,
        ttl: TimeDelta,
    },
    /// A call is over.
    SettleCall(Box<CallResult>),
    /// A call ended without use.
    ReleaseCall,
}

/// What a call that outgrows its reservation can use from now on, in total.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldGrowth {
    /// Model tokens, input and output.
    pub tokens: i64,
    /// Nano-dollars.
    pub cost: i64,
    /// The budgets that the use of its API key counts towards.
    pub budgets: KeyBudgets,
}

impl HoldAction {
    /// Whether the action is for reservations of model calls, which allow only these; `None` fits any reservation.
    pub(super) const fn is_of_call(&self) -> Option<bool> {
        match self {
            Self::Settle(_) | Self::Release | Self::Extend { .. } => Some(false),
            Self::Mark { .. } | Self::SettleCall(_) | Self::ReleaseCall => Some(true),
            Self::Expire => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum UsageCommand {
    Consume(ConsumeCommand),
    Hold(HoldCommand),
}

impl UsageCommand {
    pub(super) fn hold_id(&self) -> Option<HoldId> {
        match self {
            Self::Consume(_) => None,
            Self::Hold(command) => Some(command.hold_id),
        }
    }

    /// The meter, where it is known beforehand: the feature of a reservation is stored in its row, but that of a model
    /// call is always the same.
    pub(super) fn meter(&self) -> Option<Meter> {
        match self {
            Self::Consume(demand) => Some(demand.meter()),
            Self::Hold(HoldCommand { whose: HoldOwner::User(user_id), action, .. })
                if action.is_of_call() == Some(true) =>
            {
                Some(Meter { user_id: *user_id, feature_id: FeatureId::ai_requests() })
            }
            Self::Hold(_) => None,
        }
    }

    /// The conversation whose row is written with the command.
    pub(super) fn session_id(&self) -> Option<Uuid> {
        match self {
            Self::Hold(HoldCommand { action: HoldAction::SettleCall(result), .. }) => result.session_id,
            Self::Consume(_) | Self::Hold(_) => None,
        }
    }

    pub(super) fn key(&self) -> Option<KeyOfUser<'_>> {
        match self {
            Self::Consume(demand) if demand.call.is_none() => {
                Some(KeyOfUser { user_id: demand.user_id, key: &demand.key })
            }
            Self::Consume(_) | Self::Hold(_) => None,
        }
    }

    /// What selects the lane: the user, or the reservation where the user is not known yet.
    pub(super) fn lane_key(&self) -> Uuid {
        match self {
            Self::Consume(ConsumeCommand { user_id, .. })
            | Self::Hold(HoldCommand { whose: HoldOwner::User(user_id), .. }) => user_id.0,
            Self::Hold(command) => command.hold_id.0,
        }
    }
}

/// What the tightest limit of an API key leaves beside a call: model tokens of a minute, or nano-dollars of a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRoom {
    pub limit: i64,
    pub left: i64,
}

/// The user's tokens after a call was reserved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokensAtHand {
    pub held: i64,
    pub available: i64,
    /// What the limits of a call's API key leave beside the reservation: model tokens, and nano-dollars. `None` without
    /// a limit.
    pub key_tokens: Option<KeyRoom>,
    pub key_cost: Option<KeyRoom>,
}

/// The outcome of a `ConsumeCommand`. A refusal is an outcome with a decision, not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumeOutcome {
    pub decision: Decision,
    /// Present where a reservation was requested and granted.
    pub hold: Option<KeptHold>,
    /// How many tokens are reserved for a call, and how many are free after it; a call is lowered by it.
    pub tokens: TokensAtHand,
    /// Whether this is the first outcome again.
    pub replayed: bool,
}

/// A changed reservation, and the numbers of its counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldChanged {
    pub hold: Hold,
    pub decision: Decision,
    /// The tokens that the change took from the balance.
    pub tokens_spent: i64,
    pub replayed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandOutcome {
    Consumed(ConsumeOutcome),
    Changed(HoldChanged),
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UsageError {
    #[error("there is no such user")]
    UnknownUser,
    #[error("there is no feature `{0}`")]
    UnknownFeature(FeatureId),
    #[error("the feature `{0}` is had or not, so it is used one at a time")]
    NotMetered(FeatureId),
    #[error("this idempotency key was used for something else")]
    KeyReused,
    #[error("there is no such reservation")]
    UnknownHold,
    /// With the settled amount, if it was settled.
    #[error("the reservation is {} already", .0.as_str())]
    HoldEnded(HoldStatus, Option<i64>),
    #[error("a counter ends at {}", i64::MAX)]
    CounterFull,
    /// A limit other than the plan's.
    #[error("{reached}")]
    KeyLimit { reached: KeyLimitReached, resets_at: DateTime<Utc>, as_of: DateTime<Utc> },
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

impl From<StoreError> for UsageError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict | StoreError::Busy => Self::Contended,
            StoreError::Unavailable(why) => Self::Away(why),
            StoreError::InDoubt(why) => Self::InDoubt(why),
            other => Self::Fault(other.to_string()),
        }
    }
}

impl UsageError {
    pub(super) const fn of_hold(refusal: HoldRefusal, hold: &Hold) -> Self {
        match refusal {
            HoldRefusal::Ended(status) => Self::HoldEnded(status, hold.settled),
            HoldRefusal::CounterFull => Self::CounterFull,
        }
    }
}

/// The result of one command of a batch.
#[expect(clippy::large_enum_variant, reason = "nearly all are settled, and a box for each would cost more")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandResult {
    Settled(Result<CommandOutcome, UsageError>),
    /// Another transaction has locked its counter: to be retried with a wait.
    Busy,
    /// It would move this user's tokens, whose lock comes before all others: to be retried for that user alone.
    NeedsTokens(UserId),
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
