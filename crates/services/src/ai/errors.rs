//! Errors: why a call was not made or has no answer. Each endpoint reports them in its own dialect.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::ai::ProviderId;
use domain::entitlements::{Decision, Reason};
pub use domain::usage::KeyLimitReached;
use ports::ai::ProviderFault;
use ports::store::StoreError;
use thiserror::Error;

use super::answers::BreakOff;
use crate::entitlements::EntitlementError;
use crate::tokens::TokenError;
use crate::usage::call_commands::ReserveCallError;
use crate::usage::commands::{CommitError, UnknownMeter};

#[derive(Clone, Debug, Error)]
pub enum CallError {
    #[error("there is no model `{model}`{}", near_names(near))]
    UnknownModel { model: String, near: Vec<String> },
    #[error("the model `{0}` is not for this: it makes embeddings or conversations, not the other")]
    WrongPurpose(String),
    /// A user with a limit cannot be charged for what has no price.
    #[error("the model `{0}` has no price, so it cannot be used under a limit; an administrator can add one")]
    Unpriced(String),
    /// It has input that cannot be seen, and its model's input window is not known.
    #[error(
        "the call takes in what cannot be seen in it (a file, an address, a cache or a tool of the provider's), and nobody \
         knows how much `{0}` takes in, so it cannot be held under a limit of tokens or of costs"
    )]
    Unbounded(String),
    #[error("the input is about {tokens} tokens, and the model takes {limit}")]
    InputTooLong { tokens: u64, limit: u64 },
    /// Status 402, 403 or 429, by its reason.
    #[error("the plan does not allow it")]
    NotAllowed(Box<Decision>),
    /// The limit is reached and the balance does not pay for the most that the call can use.
    #[error(
        "the plan's limit is reached and this call can use {needed} tokens; {available} are left. Send a smaller \
         `max_tokens`, or let it be lowered"
    )]
    Unaffordable { needed: i64, available: i64, decision: Box<Decision> },
    /// The limit of a minute or a month; `resets_at` is the end of that window, as of `as_of`.
    #[error("{reached}")]
    KeyLimit { reached: KeyLimitReached, resets_at: DateTime<Utc>, as_of: DateTime<Utc> },
    /// The provider failed too often recently and is not called for `retry_after`.
    #[error("{provider} failed too often just now with this model and is not called for {} s", .retry_after.as_secs())]
    CircuitOpen { provider: ProviderId, retry_after: Duration },
    #[error("{provider}: {fault}")]
    Provider { provider: ProviderId, fault: ProviderFault },
    /// Before any part of the answer arrived.
    #[error("the call was broken off")]
    BrokenOff(BreakOff),
    #[error("there is no such session")]
    UnknownSession,
    #[error("the session has ended and takes no more messages")]
    SessionEnded,
    #[error(transparent)]
    Usage(#[from] ReserveCallError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CallError {
    /// For a call whose task ended without a result.
    pub fn lost() -> Self {
        Self::Usage(CommitError::Fault("a call ended without a result".to_owned()).into())
    }

    /// Its name in metrics.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::UnknownModel { .. } => "unknown_model",
            Self::WrongPurpose(_) => "wrong_purpose",
            Self::Unpriced(_) => "unpriced",
            Self::Unbounded(_) => "unbounded_input",
            Self::InputTooLong { .. } => "input_too_long",
            Self::NotAllowed(decision) => match decision.reason {
                Reason::Ok | Reason::LimitReached => "limit_reached",
                Reason::InsufficientTokens => "insufficient_tokens",
                Reason::FeatureDisabled | Reason::FeatureNotInPlan | Reason::SubscriptionInactive => "not_in_plan",
            },
            Self::Unaffordable { .. } => "insufficient_tokens",
            Self::KeyLimit { .. } => "key_limit_reached",
            Self::CircuitOpen { .. } => "circuit_open",
            Self::Provider { fault, .. } => fault.kind(),
            Self::BrokenOff(_) => "broken_off",
            Self::UnknownSession | Self::SessionEnded => "session",
            Self::Usage(_) | Self::Store(_) => "unavailable",
        }
    }
}

impl From<EntitlementError> for CallError {
    fn from(error: EntitlementError) -> Self {
        match error {
            EntitlementError::UnknownUser => Self::Usage(UnknownMeter::User.into()),
            EntitlementError::UnknownFeature(feature) | EntitlementError::NoOverride(feature) => {
                Self::Usage(UnknownMeter::Feature(feature).into())
            }
            EntitlementError::Store(error) => Self::Store(error),
        }
    }
}

impl From<TokenError> for CallError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Store(error) => Self::Store(error),
            TokenError::UnknownUser | TokenError::Refused(_) | TokenError::KeyReused => {
                Self::Usage(UnknownMeter::User.into())
            }
        }
    }
}

fn near_names(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; near names: {}", near.join(", ")) }
}
