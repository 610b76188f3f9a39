//! Commands of model calls. A call reserves one request of the feature `ai_requests`, beyond the plan's limit also
//! tokens, and a part of its API key's limits. It marks its progress, and it ends once.

use chrono::{DateTime, TimeDelta, Utc};
use domain::ai::{ModelId, ProviderId};
use domain::api_keys::KeyBudgets;
use domain::entitlements::Decision;
use domain::features::FeatureId;
use domain::usage::{CallPhase, CallTerms, HoldId, KeyLimitReached};
use domain::users::UserId;
use ports::entitlements::Meter;
use ports::usage::CallResult;
use thiserror::Error;
use uuid::Uuid;

use super::commands::{CommitError, ReservationError, UnknownMeter, UsageCommand};

/// Reserves what a call can use: one request, and beyond the limit the tokens. No idempotency key is stored, since
/// every call has a reservation of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReserveCallCommand {
    pub user_id: UserId,
    pub api_key_id: Option<Uuid>,
    /// The id that its reservation gets, where that is known beforehand.
    pub reservation_id: Option<HoldId>,
    pub ttl: TimeDelta,
    pub terms: CallTerms,
    /// Model tokens, input and output: the most.
    pub tokens: i64,
    /// The budgets that the use of its API key counts towards; empty without an API key.
    pub budgets: KeyBudgets,
}

impl ReserveCallCommand {
    pub(super) fn call_meter(&self) -> Meter {
        call_meter(self.user_id)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReserveCallOutcome {
    Reserved(CallGrant),
    /// Refused by the plan; with the tokens that the user can spend.
    Refused {
        decision: Decision,
        tokens_available: i64,
    },
    /// Refused by a limit of the API key, whose window ends at `resets_at`, as of `as_of`.
    KeyLimit {
        reached: KeyLimitReached,
        resets_at: DateTime<Utc>,
        as_of: DateTime<Utc>,
    },
}

/// A reserved call, and what the limits leave beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallGrant {
    pub reservation_id: HoldId,
    pub decision: Decision,
    /// The user's tokens that are reserved for it, and those that are free after it.
    pub tokens_reserved: i64,
    pub tokens_available: i64,
    /// What the limits of its API key leave: model tokens, and nano-dollars. `None` without a limit.
    pub key_tokens: Option<KeyRoom>,
    pub key_cost: Option<KeyRoom>,
}

/// What the tightest limit of an API key leaves beside a call: model tokens of a minute, or nano-dollars of a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRoom {
    pub limit: i64,
    pub left: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReserveCallError {
    #[error(transparent)]
    Unknown(#[from] UnknownMeter),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// The progress of a call, for the sweep if its process is gone: its phase, its provider, and that it goes on for `ttl`
/// from now. With `growth`, more is reserved, all of it or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkCallCommand {
    pub reservation_id: HoldId,
    pub user_id: UserId,
    pub phase: CallPhase,
    pub provider: ProviderId,
    pub model: ModelId,
    pub delivered_tokens: u64,
    pub growth: Option<CallGrowth>,
    pub ttl: TimeDelta,
}

/// What a call that outgrows its reservation can use from now on, in total.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallGrowth {
    /// Model tokens, input and output.
    pub tokens: i64,
    /// Nano-dollars.
    pub cost: i64,
    /// The budgets that the use of its API key counts towards.
    pub budgets: KeyBudgets,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkCallOutcome {
    /// With the growth, where it was requested.
    Marked,
    /// There is no room for the growth.
    NotGrown,
}

/// Ends a call.
#[derive(Clone, Debug, PartialEq)]
pub struct EndCallCommand {
    pub reservation_id: HoldId,
    pub user_id: UserId,
    pub end: ReservedCallEnd,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ReservedCallEnd {
    Settled(Box<CallResult>),
    /// Nothing was used.
    Released,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallEnded {
    /// The tokens that were taken from the balance; 0 where the call had ended before.
    pub tokens_spent: i64,
    /// Whether nothing was done: the call had ended before, or it goes on and a sweep was to settle it.
    pub replayed: bool,
}

impl UsageCommand for ReserveCallCommand {
    type Outcome = ReserveCallOutcome;
    type Error = ReserveCallError;

    fn lane_key(&self) -> Uuid {
        self.user_id.0
    }

    fn meter(&self) -> Option<Meter> {
        Some(self.call_meter())
    }
}

impl UsageCommand for MarkCallCommand {
    type Outcome = MarkCallOutcome;
    type Error = ReservationError;

    fn lane_key(&self) -> Uuid {
        self.user_id.0
    }

    fn meter(&self) -> Option<Meter> {
        Some(call_meter(self.user_id))
    }

    fn reservation_id(&self) -> Option<HoldId> {
        Some(self.reservation_id)
    }
}

impl UsageCommand for EndCallCommand {
    type Outcome = CallEnded;
    type Error = ReservationError;

    fn lane_key(&self) -> Uuid {
        self.user_id.0
    }

    fn meter(&self) -> Option<Meter> {
        Some(call_meter(self.user_id))
    }

    fn reservation_id(&self) -> Option<HoldId> {
        Some(self.reservation_id)
    }

    fn session_id(&self) -> Option<Uuid> {
        match &self.end {
            ReservedCallEnd::Settled(result) => result.session_id,
            ReservedCallEnd::Released => None,
        }
    }
}

fn call_meter(user_id: UserId) -> Meter {
    Meter { user_id, feature_id: FeatureId::ai_requests() }
}
