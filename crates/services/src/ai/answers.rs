//! Answers: what comes back of a call, piece by piece, and what it came to.

use domain::ai::{FinishReason, ModelId, Provider, TokenUsage, UsageSource};
use domain::prices::NanoUsd;
use ports::ai::{ProviderFault, ReplyPiece};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::breakers::may_be_billed;
use super::errors::CallError;

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

/// A call that is held and sent, of which nothing may be there yet. Whoever drops it leaves.
pub struct StartedCall {
    /// The head as it is expected, for whoever cannot wait: the model that was asked for, and a stream of events.
    pub expected: AnswerHead,
    /// The head once the answer begins, or why there is none.
    pub head: oneshot::Receiver<Result<AnswerHead, CallError>>,
    /// What the provider of a native stream said in comments before.
    pub comments: mpsc::Receiver<Vec<u8>>,
    pub pieces: mpsc::Receiver<AnswerPiece>,
}

impl StartedCall {
    /// Waits until the answer begins.
    pub async fn answer(self) -> Result<Answer, CallError> {
        let head = self.head.await.map_err(|_| CallError::lost())??;
        Ok(Answer { head, pieces: self.pieces })
    }
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
    /// The access token has expired, or its session, its profile or its identity has ended.
    TokenEnded,
    /// The service stops.
    Stopping,
}

impl BreakOff {
    /// Whether a call of which nothing had come is booked all the same, since its provider may bill it: where the provider was
    /// still at work when it was left. A stop of the service is no doing of the caller, who is charged nothing then.
    pub(super) const fn leaves_a_bill(&self) -> bool {
        match self {
            Self::Provider(fault) => may_be_billed(fault),
            Self::KeyRevoked | Self::TokenEnded => true,
            Self::Stopping => false,
        }
    }
}
