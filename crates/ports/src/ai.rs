//! Providers of models: one call, one attempt. Retries, fallbacks and billing are the services'.
//!
//! A call is made with a `CallHold`, which only a grant of the counters makes: what was not held cannot be sent. The hold
//! goes in by value and comes back with the reply or the fault, so that it is settled or given back exactly once.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::ai::{CallUsage, Conversation, Delta, FinishReason, ModelId, Provider, ReportedUsage};
use domain::prices::{NanoUsd, PriceKind};
use domain::usage::HoldId;
use futures_core::Stream;
use thiserror::Error;
use uuid::Uuid;

/// What was set aside for one call. It is not `Clone`: there is one, and whoever has it owes its end.
#[derive(Debug, PartialEq, Eq)]
pub struct CallHold(HoldId);

impl CallHold {
    /// For the counters alone, once the hold is committed.
    pub const fn granted(id: HoldId) -> Self {
        Self(id)
    }

    pub const fn id(&self) -> HoldId {
        self.0
    }
}

/// What of a provider is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Chat,
    Embeddings,
    /// Costs nothing at the provider.
    CountTokens,
}

/// How a streamed reply is cut into frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    ServerSentEvents,
    /// Gemini without `alt=sse`: one JSON array.
    JsonArray,
}

/// A call in the provider's own words, which is passed on as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeCall {
    pub operation: Operation,
    /// A JSON object. Only what `ProviderCall` says differently is changed in it.
    pub body: String,
    /// Headers of the provider's own that go along, such as `anthropic-beta`; names in lower case.
    pub headers: Vec<(String, String)>,
    pub framing: Framing,
}

#[derive(Clone, Debug, PartialEq)]
pub enum CallContent {
    Native(NativeCall),
    Conversation(Conversation),
}

#[derive(Clone, Debug, PartialEq)]
pub struct ProviderCall {
    pub provider: Provider,
    pub model: ModelId,
    pub content: CallContent,
    pub streamed: bool,
    /// The most that may come out, over what the content says.
    pub max_output_tokens: Option<u64>,
}

/// A piece of a reply, as soon as it is there. An unstreamed reply is one piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyPiece {
    /// For a native call: whole frames, as the provider sent them (without what the caller did not ask for). Of a JSON array
    /// the bytes of one element, without commas and brackets.
    pub frame: Vec<u8>,
    /// What it says. For a native call too: what was delivered is counted by it.
    pub deltas: Vec<Delta>,
    /// What the provider says was used so far.
    pub usage: Option<ReportedUsage>,
    /// Whether the provider says that nothing follows. The caller sees it only once the call is settled.
    pub is_last: bool,
    /// How many events of it are not understood. They are passed on all the same, and billed by their text.
    pub unread: u64,
}

pub type ReplyPieces = Pin<Box<dyn Stream<Item = Result<ReplyPiece, ProviderFault>> + Send>>;

/// A reply that has begun: its first piece is there, and it is no error.
pub struct Reply {
    pub hold: CallHold,
    /// The provider's own name of the request, for the log and the caller.
    pub request_id: Option<String>,
    /// The model that answers, where the provider says it.
    pub model: Option<String>,
    pub content_type: String,
    /// Headers of the provider's that the caller is shown; names in lower case.
    pub headers: Vec<(String, String)>,
    /// Ends after the piece that is the last. Dropping it closes the connection, which cancels the call at the provider.
    pub pieces: ReplyPieces,
}

/// What the provider refused, in its own words. Our key for the provider is in none of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    /// Of the provider's error object.
    pub message: String,
    pub code: Option<String>,
    /// The whole body, for a caller who speaks the provider's language.
    pub body: Vec<u8>,
    /// Headers of the provider's that the caller is shown; names in lower case.
    pub headers: Vec<(String, String)>,
}

/// What a call was waiting for when its time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Connection,
    FirstByte,
    /// The next piece, or the end.
    Rest,
}

impl Wait {
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
    /// The operator gave no key: this setting lacks.
    #[error("no key is set for this provider: {setting}")]
    NoKey { setting: &'static str },
    /// The request is wrong in the provider's eyes: the caller is told, and nothing is tried again.
    #[error("the provider refused the call with {}: {}", .0.status, .0.message)]
    Refused(Refusal),
    /// Our own key is wrong or may not do this: the operator's matter, which the caller cannot change.
    #[error("the provider does not take the key of this service ({}): {}", .0.status, .0.message)]
    KeyRefused(Refusal),
    /// The provider's account has reached what it may spend: trying again does not help.
    #[error("the account at the provider may spend no more: {}", .0.message)]
    SpendLimit(Refusal),
    /// Too many calls for the provider right now.
    #[error("the provider takes no more calls right now: {}", refusal.message)]
    TooFast { refusal: Refusal, retry_after: Option<Duration> },
    #[error("the provider failed with {}: {}", refusal.status, refusal.message)]
    Failed { refusal: Refusal, retry_after: Option<Duration> },
    #[error("the provider cannot be reached: {0}")]
    Unreachable(String),
    #[error("the provider did not send {} in time", .0.as_str())]
    TimedOut(Wait),
    /// The connection broke, or the answer ended before its end.
    #[error("the answer of the provider broke: {0}")]
    Broken(String),
    /// It sent what we cannot read. That may be our fault, so it tells nothing of the provider's health.
    #[error("the answer of the provider was not understood: {0}")]
    NotUnderstood(String),
}

impl ProviderFault {
    /// Its name for metrics and logs, which hold none of the provider's words: those may repeat the caller's.
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
            Self::NotUnderstood(_) => "not_understood",
        }
    }

    /// What the provider said, where it answered at all.
    pub const fn refusal(&self) -> Option<&Refusal> {
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
            | Self::NotUnderstood(_) => None,
        }
    }

    pub const fn refusal_mut(&mut self) -> Option<&mut Refusal> {
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
            | Self::NotUnderstood(_) => None,
        }
    }

    /// How long the provider asks to be left alone.
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
            | Self::NotUnderstood(_) => true,
        }
    }

    /// Whether the same provider may be asked again for the same.
    pub const fn may_be_tried_again(&self) -> bool {
        self.may_pass() && !matches!(self, Self::KeyRefused(_) | Self::SpendLimit(_))
    }
}

/// A hold and why the call came to nothing.
pub type Unanswered = (CallHold, ProviderFault);

/// Hears the comments of a native stream that come before its first piece. They promise nothing, so the call can still be
/// sent again after them. It must not block, and may drop what it has no room for.
pub trait CommentSink: Send + Sync {
    fn comment(&self, bytes: Vec<u8>);
}

#[async_trait]
pub trait AiProvider: Send + Sync {
    /// Sends the call once and waits for the first piece of its answer.
    async fn send(&self, hold: CallHold, call: &ProviderCall) -> Result<Reply, Unanswered>;

    /// The same, and hands on the comments that come before. A provider without comments has none to hand on.
    async fn send_with_comments(
        &self,
        hold: CallHold,
        call: &ProviderCall,
        _comments: Arc<dyn CommentSink>,
    ) -> Result<Reply, Unanswered> {
        self.send(hold, call).await
    }

    /// Whether it is the built-in one, which takes conversations only and bills nobody.
    fn is_sandbox(&self) -> bool;
}

/// Counts the model tokens of a text. Exact for `OpenAI`'s newest models, near enough for the others to hold and to estimate by.
pub trait TokenCounter: Send + Sync {
    fn count(&self, text: &str) -> u64;
}

/// What is to be told of a call that was made, for metrics and traces. No content is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallReport {
    pub provider: Provider,
    /// The model that was asked for.
    pub model: ModelId,
    pub operation: Operation,
    pub streamed: bool,
    /// `None` where nothing was used.
    pub usage: Option<CallUsage>,
    pub cost: Option<NanoUsd>,
    pub finish: Option<FinishReason>,
    pub request_id: Option<String>,
    pub session_id: Option<Uuid>,
    /// From the caller's request on; `None` where nothing came.
    pub first_piece: Option<Duration>,
    pub whole: Duration,
    /// A word for what went wrong, where something did.
    pub error: Option<&'static str>,
    /// How many events of the answer were not understood.
    pub unread: u64,
}

/// Hears of calls as they end, and of those that were refused before they were made. It must not block.
pub trait CallObserver: Send + Sync {
    fn ended(&self, report: &CallReport);
    /// By a word for why: `limit`, `tokens`, `key_limit`, ..
    fn refused(&self, provider: Provider, model: &ModelId, why: &'static str);
    /// Kinds of tokens that a call used and that have no price, so that another kind's was taken.
    fn assumed_prices(&self, provider: Provider, kinds: &[PriceKind]);
    /// A call used more than was held for it.
    fn beyond_hold(&self, provider: Provider);
}
