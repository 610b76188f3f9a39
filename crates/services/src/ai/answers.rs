//! Answers: the pieces of a provider's answer as they arrive, and the receipt of the call.

use domain::ai::{FinishReason, ModelId, ProviderProfile, TokenUsage, UsageSource};
use domain::prices::NanoUsd;
use ports::ai::{ProviderFault, ReplyPiece};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::breakers::may_be_billed;
use super::errors::CallError;

/// What is known when an answer begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerHead {
    /// The id of the call in the usage log.
    pub call_id: Uuid,
    /// The provider and the model that answer; a fallback can differ from what was requested.
    pub provider: ProviderProfile,
    pub model: ModelId,
    pub is_sandbox: bool,
    /// The provider's own id of the request.
    pub request_id: Option<String>,
    pub content_type: String,
    /// Headers of the provider that are passed to the caller; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The output limit per answer, where it was lowered to what can be paid.
    pub lowered_to: Option<u64>,
}

/// What a call used and cost, once it is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallReceipt {
    pub call_id: Uuid,
    pub usage: TokenUsage,
    pub source: UsageSource,
    /// `None` for a model without a price.
    pub cost: Option<NanoUsd>,
    /// Tokens taken from the balance, because the plan's limit was reached.
    pub tokens_spent: i64,
    pub finish: Option<FinishReason>,
    pub latency_ms: u64,
}

/// A call that is reserved and sent; its answer may not have begun. If it is dropped, the caller has left.
pub struct StartedCall {
    /// The expected head, for a caller that cannot wait: the requested model, and an event stream.
    pub expected: AnswerHead,
    /// The head once the answer begins, or why there is none.
    pub head: oneshot::Receiver<Result<AnswerHead, CallError>>,
    /// Comments of a native stream that came before the answer.
    pub comments: mpsc::Receiver<Vec<u8>>,
    pub pieces: mpsc::Receiver<AnswerPiece>,
}

impl StartedCall {
    /// Waits until the answer begins.
    pub async fn answer(self) -> Result<CallAnswer, CallError> {
        let head = self.head.await.map_err(|_| CallError::lost())??;
        Ok(CallAnswer { head, pieces: self.pieces })
    }
}

/// An answer that has begun. If it is dropped, the caller has left: the call is drained within bounds and billed all
/// the same.
pub struct CallAnswer {
    pub head: AnswerHead,
    pub pieces: mpsc::Receiver<AnswerPiece>,
}

/// The order is: pieces, at most one `Cut` or `Broken`, then `Settled`. If `Settled` is missing at the end, the books
/// could not be written, and the sweep settles the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerPiece {
    Piece(ReplyPiece),
    /// The gateway ended the answer: the reservation is used up and cannot be extended. Dialects report it as `length`.
    Cut,
    /// The provider broke off, or the caller's credential ended, or the service stops; what was delivered is billed.
    Broken(BreakOff),
    /// Comes after the last piece, which is sent only once the call is settled.
    Settled(CallReceipt),
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
    /// Whether a call that delivered nothing is booked all the same, because its provider was still at work when the
    /// call was broken off and may bill it. The caller does not cause a stop of the service and is charged nothing for
    /// it.
    pub(super) const fn leaves_a_bill(&self) -> bool {
        match self {
            Self::Provider(fault) => may_be_billed(fault),
            Self::KeyRevoked | Self::TokenEnded => true,
            Self::Stopping => false,
        }
    }
}
