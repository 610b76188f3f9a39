//! Answers: what comes back of a call, piece by piece, and what it came to.

use domain::ai::{FinishReason, ModelId, Provider, TokenUsage, UsageSource};
use domain::prices::NanoUsd;
use ports::ai::{ProviderFault, ReplyPiece};
use tokio::sync::mpsc;
use uuid::Uuid;

/// What is known when an answer begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerHead {
    /// The id of the call, under which it stands in the usage log.
    pub call_id: Uuid,
    /// Who answers, and as which model; a fallback may be another than was asked.
    pub provider: Provider,
    pub model: ModelId,
    pub is_sandbox: bool,
    /// The provider's own name of the request.
    pub request_id: Option<String>,
    pub content_type: String,
    /// Headers of the provider's that the caller is shown; names in lower case.
    pub headers: Vec<(String, String)>,
    /// What the bound of the output was lowered to, since no more can be paid.
    pub lowered_to: Option<u64>,
}

/// What a call came to, once it is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub call_id: Uuid,
    pub usage: TokenUsage,
    pub source: UsageSource,
    /// `None` for a model without a price.
    pub cost: Option<NanoUsd>,
    /// Taken from the balance, since the plan's limit was reached.
    pub tokens_spent: i64,
    pub finish: Option<FinishReason>,
    pub latency_ms: u64,
}

/// An answer that has begun. Whoever drops it leaves: the call is drained within bounds and billed all the same.
pub struct Answer {
    pub head: AnswerHead,
    pub pieces: mpsc::Receiver<AnswerPiece>,
}

/// In this order: pieces, at most one `Cut` or `Broken`, then `Settled`. Without `Settled` at the end the books could not be
/// written; the sweep settles the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerPiece {
    Piece(ReplyPiece),
    /// The gateway ended the answer: what was held is used up, and no more can be held. To be told as the dialect's `length`.
    Cut,
    /// The provider broke off, or the caller's key was revoked; what was delivered is billed.
    Broken(BreakOff),
    /// After the last piece, which is not sent before.
    Settled(Receipt),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BreakOff {
    Provider(ProviderFault),
    KeyRevoked,
    /// The service stops.
    Stopping,
}
