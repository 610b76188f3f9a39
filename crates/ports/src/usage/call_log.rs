//! The call log: what model calls used and cost, and the messages of conversations.

use async_trait::async_trait;
use domain::ai::{CallUsage, ProviderId, ReportedUsage, Speaker};
use domain::prices::{Cost, NanoUsd};
use domain::usage::{HoldId, ReservedCallState};
use domain::users::UserId;
use uuid::Uuid;

use crate::store::{LockPatience, LockResult, StoreError};

/// The result of a call of a model: a row of the usage log, and the messages where it belongs to a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct CallRecord {
    /// The call's id is its reservation's.
    pub reservation_id: HoldId,
    pub user_id: UserId,
    pub api_key_id: Option<Uuid>,
    pub result: CallResult,
    /// The tokens that were used beyond all that the balance had.
    pub unpaid_tokens: i64,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// The provider's answer is complete.
    Ok,
    /// The gateway ended it: no more could be reserved.
    Cut,
    /// The provider broke off.
    Broken,
    /// The caller left before the end.
    Left,
    /// Its process was gone; a sweep settled it.
    Swept,
}

impl CallOutcome {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Cut => "cut",
            Self::Broken => "broken",
            Self::Left => "left",
            Self::Swept => "swept",
        }
    }
}

/// What a call of a model used and cost.
#[derive(Clone, Debug, PartialEq)]
pub struct CallResult {
    pub provider: ProviderId,
    pub model: String,
    pub usage: CallUsage,
    /// The usage as the provider reported it.
    pub reported: Option<ReportedUsage>,
    /// `None` for a model without a price.
    pub cost: Option<Cost>,
    pub outcome: CallOutcome,
    /// `None` where it was not measured.
    pub latency_ms: Option<i64>,
    pub session_id: Option<Uuid>,
    /// In their order in the conversation.
    pub messages: Vec<SaidMessage>,
    pub beyond: BeyondHold,
}

/// What a call used beyond its reservation: overage that no limit prevented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BeyondHold {
    pub tokens: i64,
    pub cost_nano_usd: i64,
}

impl BeyondHold {
    pub const fn is_nothing(&self) -> bool {
        self.tokens == 0 && self.cost_nano_usd == 0
    }
}

/// A message of a conversation that is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct SaidMessage {
    pub speaker: Speaker,
    pub content: String,
    pub tokens: i64,
    pub cost: NanoUsd,
}

/// A call whose time is over and that its process did not end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueCall {
    pub reservation_id: HoldId,
    pub user_id: UserId,
    /// `None` where this release cannot read the row.
    pub call: Option<ReservedCallState>,
}

#[async_trait]
pub trait CallLogRepository: Send {
    /// Locks conversations, in the order of `ids`, which are sorted and distinct: one statement.
    async fn lock_sessions(&mut self, ids: &[Uuid], patience: LockPatience) -> Result<Vec<LockResult<()>>, StoreError>;
    /// Writes ended calls in one statement, and the messages of conversations in another.
    async fn record(&mut self, calls: &[CallRecord]) -> Result<(), StoreError>;
    /// Calls whose time is over after they were sent, the longest overdue first, at most `limit`, without those in
    /// `excluded`.
    async fn list_due(&mut self, excluded: &[HoldId], limit: u64) -> Result<Vec<DueCall>, StoreError>;
}
