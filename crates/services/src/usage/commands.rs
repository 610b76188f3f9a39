//! Commands: what is asked of the counters, and what it came to.

use chrono::{DateTime, TimeDelta, Utc};
use domain::ai::{ModelId, Provider};
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

/// Something that somebody wants to use. `amount` is positive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The charged user, to whom the key belongs.
    pub user_id: UserId,
    pub feature_id: FeatureId,
    pub amount: i64,
    pub key: IdempotencyKey,
    /// The API key by which it was asked for, for the event.
    pub api_key_id: Option<Uuid>,
    /// Set aside for so long, instead of used at once.
    pub hold_for: Option<TimeDelta>,
    /// It is held for a call of a model: one of the feature, and beyond the limit the tokens that the call can use. Its key
    /// is not kept, since every call has one of its own.
    pub call: Option<Box<CallDemand>>,
}

/// What a call of a model can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallDemand {
    /// The id that its hold gets, where that is known before.
    pub hold_id: Option<HoldId>,
    pub terms: CallTerms,
    /// Model tokens, input and output: the most.
    pub tokens: i64,
    /// The budgets that the use of its API key counts on; empty where it is made by none.
    pub budgets: KeyBudgets,
}

impl Demand {
    pub fn meter(&self) -> Meter {
        Meter { user_id: self.user_id, feature_id: self.feature_id.clone() }
    }
}

/// What shall become of a hold.
#[derive(Clone, Debug, PartialEq)]
pub struct HoldCommand {
    pub hold_id: HoldId,
    pub whose: Whose,
    pub action: HoldAction,
}

/// Whose holds the caller may touch. Another's is answered as one that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Only(UserId),
    Anybodys,
}

#[derive(Clone, Debug, PartialEq)]
pub enum HoldAction {
    /// So much was really used.
    Settle(i64),
    Release,
    /// Hold `amount` in all from now on, if that is more, and until `ttl` from now, if that is later.
    Extend {
        amount: Option<i64>,
        ttl: TimeDelta,
    },
    /// Give it back if its time is over.
    Expire,
    /// A call goes on: how far it has come and who answers, for whoever finds its hold without its process; and that it goes
    /// on for `ttl` from now. Where it grows, more is held, all of it or nothing.
    Mark {
        phase: CallPhase,
        provider: Provider,
        model: ModelId,
        delivered_tokens: u64,
        growth: Option<Growth>,
        ttl: TimeDelta,
    },
    /// A call is over.
    SettleCall(Box<CallResult>),
    /// A call came to nothing.
    ReleaseCall,
}

/// What a call that outgrows its hold can use from now on, in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Model tokens, input and output.
    pub tokens: i64,
    /// Nano-dollars.
    pub cost: i64,
    /// The budgets that the use of its API key counts on.
    pub budgets: KeyBudgets,
}

impl HoldAction {
    /// Whether it is what a call of a model does with its hold; nobody else may touch that one.
    pub(super) const fn is_of_call(&self) -> Option<bool> {
        match self {
            Self::Settle(_) | Self::Release | Self::Extend { .. } => Some(false),
            Self::Mark { .. } | Self::SettleCall(_) | Self::ReleaseCall => Some(true),
            Self::Expire => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    Demand(Demand),
    Hold(HoldCommand),
}

impl Command {
    pub(super) fn hold_id(&self) -> Option<HoldId> {
        match self {
            Self::Demand(_) => None,
            Self::Hold(command) => Some(command.hold_id),
        }
    }

    /// The meter, as far as it is known beforehand: which feature a hold is of stands with the hold, but a call of a model
    /// is always one of the same.
    pub(super) fn meter(&self) -> Option<Meter> {
        match self {
            Self::Demand(demand) => Some(demand.meter()),
            Self::Hold(HoldCommand { whose: Whose::Only(user_id), action, .. })
                if action.is_of_call() == Some(true) =>
            {
                Some(Meter { user_id: *user_id, feature_id: FeatureId::ai_requests() })
            }
            Self::Hold(_) => None,
        }
    }

    /// The conversation whose row is written with it.
    pub(super) fn session_id(&self) -> Option<Uuid> {
        match self {
            Self::Hold(HoldCommand { action: HoldAction::SettleCall(result), .. }) => result.session_id,
            Self::Demand(_) | Self::Hold(_) => None,
        }
    }

    pub(super) fn key(&self) -> Option<KeyOfUser<'_>> {
        match self {
            Self::Demand(demand) if demand.call.is_none() => {
                Some(KeyOfUser { user_id: demand.user_id, key: &demand.key })
            }
            Self::Demand(_) | Self::Hold(_) => None,
        }
    }

    /// What decides on the lane: the user, as far as it is known yet.
    pub(super) fn lane_key(&self) -> Uuid {
        match self {
            Self::Demand(Demand { user_id, .. }) | Self::Hold(HoldCommand { whose: Whose::Only(user_id), .. }) => {
                user_id.0
            }
            Self::Hold(command) => command.hold_id.0,
        }
    }
}

/// What the tightest limit of a key leaves beside a call: model tokens of a minute, or nano-dollars of a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRoom {
    pub limit: i64,
    pub left: i64,
}

/// The user's tokens, as a call left them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokensAtHand {
    pub held: i64,
    pub available: i64,
    /// What the limits of a call's API key leave beside what was held: model tokens, and nano-dollars. `None` where it has none.
    pub key_tokens: Option<KeyRoom>,
    pub key_cost: Option<KeyRoom>,
}

/// What a demand came to. A refusal is an answer, not an error: it has a decision too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demanded {
    pub decision: Decision,
    /// Where a hold was asked for and granted.
    pub hold: Option<KeptHold>,
    /// How many tokens are held for a call, and how many are free after it; a call is lowered by it.
    pub tokens: TokensAtHand,
    /// Whether this is the first outcome again.
    pub replayed: bool,
}

/// What became of a hold, and the numbers of its counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    pub hold: Hold,
    pub decision: Decision,
    /// What was taken from the balance by it.
    pub tokens_spent: i64,
    pub replayed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Demanded(Demanded),
    Changed(Changed),
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
    /// With what was settled, where it was.
    #[error("the reservation is {} already", .0.as_str())]
    HoldEnded(HoldStatus, Option<i64>),
    #[error("a counter ends at {}", i64::MAX)]
    CounterFull,
    /// Another limit than the plan's.
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

/// What became of one command of a batch.
#[expect(clippy::large_enum_variant, reason = "nearly all are settled, and a box for each would cost more")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Settled(Result<Outcome, UsageError>),
    /// Somebody else holds its counter: to be tried again, waiting.
    Held,
    /// It would move this user's tokens, whose lock comes before all others: to be tried again, for that user alone.
    NeedsTokens(UserId),
}

/// How a batch treats what stands in its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// Leave held counters and payments to a later try.
    Swift,
    /// Wait for held counters; leave payments to a later try.
    Patient,
    /// One user's commands, with the user's row locked first: wait, and pay.
    Paying(UserId),
}

/// When a hold that is made or extended now ends.
pub(super) fn ends_at(now: DateTime<Utc>, ttl: TimeDelta) -> DateTime<Utc> {
    now.checked_add_signed(ttl).unwrap_or(now)
}
