//! Errors: why a call was not made or has no answer. Each door tells them in its own dialect.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::ai::Provider;
use domain::entitlements::Decision;
use ports::ai::ProviderFault;
use ports::store::StoreError;
use rust_decimal::Decimal;
use thiserror::Error;

use crate::usage::commands::UsageError;

/// Which limit of an API key stands in the way, with its numbers.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyLimitReached {
    #[error("this API key has made {used} of {limit} requests of this minute")]
    Requests { limit: i64, used: i64 },
    #[error(
        "this API key has {used} of {limit} tokens of this minute used or held, and this call needs up to {needed}"
    )]
    Tokens { limit: i64, used: i64, needed: i64 },
    #[error(
        "this API key has used or held {used_usd} of the {limit_usd} dollars of this month, and this call can cost {needed_usd}"
    )]
    Cost { limit_usd: Decimal, used_usd: Decimal, needed_usd: Decimal },
}

#[derive(Clone, Debug, Error)]
pub enum CallError {
    #[error("there is no model `{model}`{}", near_names(near))]
    UnknownModel { model: String, near: Vec<String> },
    #[error("the model `{0}` is not for this: it makes embeddings or conversations, not the other")]
    WrongPurpose(String),
    /// A user with a limit cannot be charged for what has no price.
    #[error("the model `{0}` has no price, so it cannot be used under a limit; an administrator can add one")]
    Unpriced(String),
    #[error("the input is about {tokens} tokens, and the model takes {limit}")]
    InputTooLong { tokens: u64, limit: u64 },
    /// 402, 403 or 429, by its reason.
    #[error("the plan does not allow it")]
    NotAllowed(Box<Decision>),
    /// The limit is reached and the balance does not pay for the most that the call can use.
    #[error(
        "the plan's limit is reached and this call can use {needed} tokens; {available} are left. Send a smaller \
         `max_tokens`, or let it be lowered"
    )]
    Unaffordable { needed: i64, available: i64, decision: Box<Decision> },
    /// Of a minute or a month; `resets_at` is its end.
    #[error("{reached}")]
    KeyLimit { reached: KeyLimitReached, resets_at: DateTime<Utc> },
    /// The provider failed too often just now and is left alone until then.
    #[error("{provider} failed too often just now and is not called for {} s", .retry_after.as_secs())]
    CircuitOpen { provider: Provider, retry_after: Duration },
    #[error("{provider}: {fault}")]
    Provider { provider: Provider, fault: ProviderFault },
    #[error("there is no such session")]
    UnknownSession,
    #[error("the session has ended and takes no more messages")]
    SessionEnded,
    #[error(transparent)]
    Usage(#[from] UsageError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn near_names(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; near names: {}", near.join(", ")) }
}
