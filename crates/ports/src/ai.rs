//! Providers of models: one call, one attempt. Retries, fallbacks and billing are the services'.
//!
//! A call is made with a `CallReservation`, which only a grant of the counters creates: what was not reserved cannot be
//! sent. It goes in by value and comes back with the reply or the fault, so that it is settled or released exactly
//! once.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::ai::{
    AnswerDelta, CallUsage, Conversation, FinishReason, ModelId, ProviderId, ProviderProfile, ReportedUsage,
};
use domain::prices::{NanoUsd, PriceKind};
use domain::usage::HoldId;
use futures_core::Stream;
use thiserror::Error;
use uuid::Uuid;

/// What was reserved for one call. It is not `Clone`: there is one, and its owner must end it.
#[derive(Debug, PartialEq, Eq)]
pub struct CallReservation(HoldId);

impl CallReservation {
    /// For the counters alone, once the reservation is committed.
    pub const fn granted(id: HoldId) -> Self {
        Self(id)
    }

    pub const fn id(&self) -> HoldId {
        self.0
    }
}

/// Which operation of a provider is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AiOperation {
    Chat,
    Embeddings,
    /// Free of charge at the provider.
    CountTokens,
}

/// How a streamed reply is cut into frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamFraming {
    ServerSentEvents,
    /// Gemini without `alt=sse`: one JSON array.
    JsonArray,
}

/// A call in the provider's own dialect, which is passed on as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeCall {
    pub operation: AiOperation,
    /// A JSON object. Only what `ProviderCall` sets differently is changed in it.
    pub body: String,
    /// Headers of the provider's own that are sent along, such as `anthropic-beta`; names in lower case.
    pub headers: Vec<(String, String)>,
    pub framing: StreamFraming,
}

#[derive(Clone, Debug, PartialEq)]
pub enum CallContent {
    Native(NativeCall),
    Conversation(Conversation),
}

#[derive(Clone, Debug, PartialEq)]
pub struct ProviderCall {
    pub provider: ProviderProfile,
    pub model: ModelId,
    pub content: CallContent,
    pub streamed: bool,
    /// The most output; overrides the content's own bound.
    pub max_output_tokens: Option<u64>,
}

/// A piece of a reply, passed on as soon as it arrives. An unstreamed reply is one piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyPiece {
    /// For a native call: whole frames, as the provider sent them (without what the caller did not request). Of a JSON
    /// array the bytes of one element, without commas and brackets.
    pub frame: Vec<u8>,
    /// Its parsed content. For a native call too: what was delivered is counted by it.
    pub deltas: Vec<AnswerDelta>,
    /// The output in it that is no delta, such as a picture or encrypted thinking: an estimate by its size, in tokens.
    pub hidden_tokens: u64,
    /// The usage so far, as the provider reports it.
    pub usage: Option<ReportedUsage>,
    /// Whether the provider reports that nothing follows. The caller gets it only once the call is settled.
    pub is_last: bool,
    /// How many of its events could not be parsed. They are passed on all the same, and billed by their text.
    pub unread: u64,
}

pub type ReplyPieces = Pin<Box<dyn Stream<Item = Result<ReplyPiece, ProviderFault>> + Send>>;

/// A reply that has begun: its first piece has arrived, and is no error.
pub struct ProviderReply {
    pub hold: CallReservation,
    /// The provider's own id of the request, for the log and the caller.
    pub request_id: Option<String>,
    /// The model that answers, where the provider reports it.
    pub model: Option<String>,
    pub content_type: String,
    /// Headers of the provider that are passed to the caller; names in lower case.
    pub headers: Vec<(String, String)>,
    /// Ends after the last piece. Dropping it closes the connection, which cancels the call at the provider.
    pub pieces: ReplyPieces,
}

/// A refusal in the provider's own words. None of them contains our key for the provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderRefusal {
    pub status: u16,
    /// From the provider's error object.
    pub message: String,
    pub code: Option<String>,
    /// The whole body, for a caller that uses the provider's dialect.
    pub body: Vec<u8>,
    /// Headers of the provider that are passed to the caller; names in lower case.
    pub headers: Vec<(String, String)>,
}

/// What a call was waiting for when its time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderWait {
    Connection,
    FirstByte,
    /// The next piece, or the end.
    Rest,
}

impl ProviderWait {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "a connection",
            Self::FirstByte => "the first byte",
            Self::Rest => "the rest of the answer",
        }
    }
}

/// What went wrong with an attempt, by what can be done about it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProviderFault {
    /// The operator set no key: this setting is missing.
    #[error("no key is set for this provider: {setting}")]
    NoKey { setting: String },
    /// The provider rejects the request: the caller gets the error, and nothing is retried.
    #[error("the provider refused the call with {}: {}", .0.status, .0.message)]
    Refused(ProviderRefusal),
    /// Our own key is wrong or may not do this: only the operator can change that.
    #[error("the provider does not take the key of this service ({}): {}", .0.status, .0.message)]
    KeyRefused(ProviderRefusal),
    /// The provider's account has reached its spending limit: trying again does not help.
    #[error("the account at the provider may spend no more: {}", .0.message)]
    SpendLimit(ProviderRefusal),
    /// Too many calls for the provider right now.
    #[error("the provider takes no more calls right now: {}", refusal.message)]
    TooFast { refusal: ProviderRefusal, retry_after: Option<Duration> },
    #[error("the provider failed with {}: {}", refusal.status, refusal.message)]
    Failed { refusal: ProviderRefusal, retry_after: Option<Duration> },
    #[error("the provider cannot be reached: {0}")]
    Unreachable(String),
    #[error("the provider did not send {} in time", .0.as_str())]
    TimedOut(ProviderWait),
    /// The connection broke, or the answer ended too early.
    #[error("the answer of the provider broke: {0}")]
    Broken(String),
    /// The provider answered a call that is not streamed, so the answer was generated, and it did not arrive whole: the
    /// connection broke in its body, or it is too large.
    #[error("the answer of the provider was lost: {0}")]
    LostAnswer(String),
    /// The answer could not be parsed. That may be our fault, so it says nothing of the provider's health.
    #[error("the answer of the provider was not understood: {0}")]
    NotUnderstood(String),
}

impl ProviderFault {
    /// Its name for metrics and logs, which contain no text of the provider's: that may repeat the caller's.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::NoKey { .. } => "no_key",
            Self::Refused(_) => "refused",
            Self::KeyRefused(_) => "key_refused",
            Self::SpendLimit(_) => "spend_limit",
            Self::TooFast { .. } => "too_fast",
            Self::Failed { .. } => "failed",
            Self::Unreachable(_) => "unreachable",
            Self::TimedOut(_) => "timed_out",
            Self::Broken(_) => "broken",
            Self::LostAnswer(_) => "lost_answer",
            Self::NotUnderstood(_) => "not_understood",
        }
    }

    /// The provider's refusal, where it answered at all.
    pub const fn refusal(&self) -> Option<&ProviderRefusal> {
        match self {
            Self::Refused(refusal)
            | Self::KeyRefused(refusal)
            | Self::SpendLimit(refusal)
            | Self::TooFast { refusal, .. }
            | Self::Failed { refusal, .. } => Some(refusal),
            Self::NoKey { .. }
            | Self::Unreachable(_)
            | Self::TimedOut(_)
            | Self::Broken(_)
            | Self::LostAnswer(_)
            | Self::NotUnderstood(_) => None,
        }
    }

    pub const fn refusal_mut(&mut self) -> Option<&mut ProviderRefusal> {
        match self {
            Self::Refused(refusal)
            | Self::KeyRefused(refusal)
            | Self::SpendLimit(refusal)
            | Self::TooFast { refusal, .. }
            | Self::Failed { refusal, .. } => Some(refusal),
            Self::NoKey { .. }
            | Self::Unreachable(_)
            | Self::TimedOut(_)
            | Self::Broken(_)
            | Self::LostAnswer(_)
            | Self::NotUnderstood(_) => None,
        }
    }

    /// How long the provider asks not to be called.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooFast { retry_after, .. } | Self::Failed { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether another attempt can succeed, here or at another provider.
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::NoKey { .. } | Self::Refused(_) => false,
            Self::KeyRefused(_)
            | Self::SpendLimit(_)
            | Self::TooFast { .. }
            | Self::Failed { .. }
            | Self::Unreachable(_)
            | Self::TimedOut(_)
            | Self::Broken(_)
            | Self::LostAnswer(_)
            | Self::NotUnderstood(_) => true,
        }
    }

    /// Whether the same call may be sent to the same provider again.
    pub const fn may_be_tried_again(&self) -> bool {
        self.may_pass() && !matches!(self, Self::KeyRefused(_) | Self::SpendLimit(_))
    }
}

/// The reservation, and why the call has no answer.
pub type CallUnanswered = (CallReservation, ProviderFault);

/// Receives the comments of a native stream that come before its first piece. They are no part of the answer, so the
/// call can still be sent again after them. It must not block, and may drop what it has no room for.
pub trait CommentSink: Send + Sync {
    fn comment(&self, bytes: Vec<u8>);
}

#[async_trait]
pub trait AiProvider: Send + Sync {
    /// Sends the call once and waits for the first piece of its answer.
    async fn send(&self, hold: CallReservation, call: &ProviderCall) -> Result<ProviderReply, CallUnanswered>;

    /// The same, and passes on the comments that come before. A provider without comments needs only `send`.
    async fn send_with_comments(
        &self,
        hold: CallReservation,
        call: &ProviderCall,
        _comments: Arc<dyn CommentSink>,
    ) -> Result<ProviderReply, CallUnanswered> {
        self.send(hold, call).await
    }

    /// Whether it is the built-in provider, which takes conversations only and bills nothing.
    fn is_sandbox(&self) -> bool;
}

/// Counts the model tokens of a text. Exact for `OpenAI`'s newest models, and near enough for the others to reserve and
/// to estimate by.
pub trait TokenCounter: Send + Sync {
    fn count(&self, text: &str) -> u64;
}

/// The report of a call that was made, for metrics and traces. It contains no content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallReport {
    pub provider: ProviderId,
    /// The requested model.
    pub model: ModelId,
    pub operation: AiOperation,
    pub streamed: bool,
    /// `None` where nothing was used.
    pub usage: Option<CallUsage>,
    pub cost: Option<NanoUsd>,
    pub finish: Option<FinishReason>,
    pub request_id: Option<String>,
    pub session_id: Option<Uuid>,
    /// From the caller's request on; `None` where nothing arrived.
    pub first_piece: Option<Duration>,
    pub whole: Duration,
    /// The name of the error, where there was one.
    pub error: Option<&'static str>,
    /// How many events of the answer could not be parsed.
    pub unread: u64,
}

/// Receives calls as they end, and those that were refused before they were made. It must not block.
pub trait CallObserver: Send + Sync {
    fn ended(&self, report: &CallReport);
    /// `why` is the name of the error: `limit_reached`, `insufficient_tokens`, `key_limit_reached`, ..
    fn refused(&self, provider: ProviderId, model: &ModelId, why: &'static str);
    /// Kinds of tokens that a call used and that have no price, so that another kind's price was taken.
    fn assumed_prices(&self, provider: ProviderId, kinds: &[PriceKind]);
    /// A call used more than was reserved for it.
    fn beyond_hold(&self, provider: ProviderId);
}
