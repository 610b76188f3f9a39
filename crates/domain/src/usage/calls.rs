//! Reservations for model calls. A call reserves one request of the counter. Beyond the limit it also reserves as many
//! of the user's tokens as the call can use, input and output. A call reserves a part of its API key's limits per
//! minute and per month too.
//!
//! The usage of a call is never clamped: what the reserved and the available tokens do not cover is reported as unpaid.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::holds::{current_decision, free};
use super::{ApiKeyReservation, Hold, HoldOutcome, HoldRefusal, HoldStatus};
use crate::ai::{ModelId, ProviderId};
use crate::api_keys::ApiKeyId;
use crate::entitlements::{Decision, Entitlement, Overage, Reason, decide};

/// How far a call has come. A sweep settles a reservation by it when the process that made the call is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallPhase {
    /// Reserved; as far as is known, nothing was sent to the provider.
    Reserved,
    /// The request was sent to the provider.
    Dispatched,
    /// The response to the caller has begun.
    FirstByte,
    Settled,
}

impl CallPhase {
    pub const ALL: [Self; 4] = [Self::Reserved, Self::Dispatched, Self::FirstByte, Self::Settled];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Dispatched => "dispatched",
            Self::FirstByte => "first_byte",
            Self::Settled => "settled",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no phase of a call: reserved, dispatched, first_byte or settled")]
pub struct UnknownPhase(pub String);

impl FromStr for CallPhase {
    type Err = UnknownPhase;

    fn from_str(text: &str) -> Result<Self, UnknownPhase> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == text).ok_or_else(|| UnknownPhase(text.to_owned()))
    }
}

/// All that is needed to settle a call without the process that made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallTerms {
    pub provider: ProviderId,
    pub model: ModelId,
    /// Whether the built-in sandbox provider answers. Its calls are not billed.
    #[serde(default)]
    pub is_sandbox: bool,
    /// The estimated input tokens.
    pub input_tokens: u64,
    /// The upper bound of output tokens.
    pub max_output_tokens: u64,
    /// The output tokens delivered so far, as last recorded by the process.
    #[serde(default)]
    pub delivered_tokens: u64,
    /// The upper bound of the cost in nano-dollars; `None` for a model without a price.
    pub max_cost_nano_usd: Option<i64>,
    pub began_at: DateTime<Utc>,
    #[serde(default)]
    pub session_id: Option<Uuid>,
    /// What the call reserves of its API key's limits.
    #[serde(default)]
    pub on_key: Option<ApiKeyReservation>,
    /// The lineages of API keys that the call counts against: that of its key and those of the key's makers. Empty for
    /// a call that an earlier release reserved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_lineages: Vec<ApiKeyId>,
}

/// The state of the call that a reservation was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservedCallState {
    pub phase: CallPhase,
    pub terms: CallTerms,
}

/// The result of settling a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallEnding {
    /// The counter after settling.
    pub decision: Decision,
    /// 1 if the request is beyond the limit, else 0.
    pub overage: i64,
    pub tokens_freed: i64,
    pub tokens_spent: i64,
    /// Tokens used beyond the whole balance.
    pub tokens_unpaid: i64,
}

/// Reserves one request, or returns the reason for refusing it. Beyond the limit it reserves `tokens`, the most that
/// the call can use.
pub fn hold_call(entitlement: &mut Entitlement, tokens: i64) -> HoldOutcome {
    let mut decision = decide(entitlement, 1);
    let beyond = decision.remaining == Some(0) && entitlement.overage == Overage::Tokens;
    if beyond && matches!(decision.reason, Reason::Ok | Reason::InsufficientTokens) {
        decision.allowed = tokens <= entitlement.tokens_available;
        decision.reason = if decision.allowed { Reason::Ok } else { Reason::InsufficientTokens };
    }
    let tally = entitlement.tally;
    let fits = tally.used.checked_add(tally.reserved).is_some_and(|sum| sum < i64::MAX);
    if decision.allowed && !fits {
        decision.allowed = false;
        decision.reason = Reason::LimitReached;
    }
    if !decision.allowed {
        return HoldOutcome { decision, beyond: 0, tokens: 0 };
    }
    let held = if beyond { tokens } else { 0 };
    entitlement.tokens_available -= held;
    entitlement.tally.reserved += i64::from(!beyond);
    decision.reserved = entitlement.tally.reserved;
    decision.remaining = entitlement.allowance.remaining(entitlement.tally.against_limit());
    HoldOutcome { decision, beyond: i64::from(beyond), tokens: held }
}

/// Extends the reservation of a call that is paid with tokens to `tokens` in total; it never shrinks. Returns how many
/// more were reserved, or `None` if the balance has too few, in which case nothing changes. A call within the limit
/// needs none.
pub fn extend_call(held: &mut Hold, entitlement: &mut Entitlement, tokens: i64) -> Result<Option<i64>, HoldRefusal> {
    if held.status != HoldStatus::Pending {
        return Err(HoldRefusal::Ended(held.status));
    }
    let more = if held.beyond > 0 { tokens.saturating_sub(held.tokens).max(0) } else { 0 };
    if more > entitlement.tokens_available {
        return Ok(None);
    }
    entitlement.tokens_available -= more;
    held.tokens += more;
    Ok(Some(more))
}

/// Settles a call that used `tokens`. Within the limit it counts as one request. Beyond the limit the tokens are spent
/// as far as the balance covers them, reserved ones first. A call whose reservation expired is beyond the limit if
/// nothing remains under the limit.
pub fn settle_call(held: &mut Hold, entitlement: &mut Entitlement, tokens: i64) -> Result<CallEnding, HoldRefusal> {
    let covers = match held.status {
        HoldStatus::Pending => true,
        HoldStatus::Expired => false,
        ended => return Err(HoldRefusal::Ended(ended)),
    };
    let used_after = entitlement.tally.used.checked_add(1).ok_or(HoldRefusal::CounterFull)?;
    let tokens_freed = if covers { free(held, entitlement) } else { 0 };
    let left = entitlement.allowance.remaining(entitlement.tally.against_limit());
    let is_beyond = if covers { held.beyond > 0 } else { left == Some(0) };
    let pays = is_beyond && (held.tokens > 0 || entitlement.overage == Overage::Tokens);
    let tokens_spent = if pays { tokens.min(entitlement.tokens_available).max(0) } else { 0 };
    let tokens_unpaid = if pays { tokens - tokens_spent } else { 0 };
    entitlement.tokens_available -= tokens_spent;
    entitlement.tally.used = used_after;
    entitlement.tally.overage += i64::from(is_beyond);
    held.status = HoldStatus::Settled;
    held.settled = Some(1);
    held.overage = i64::from(is_beyond);
    let decision = current_decision(entitlement);
    Ok(CallEnding { decision, overage: i64::from(is_beyond), tokens_freed, tokens_spent, tokens_unpaid })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::usage::testing::{entitlement, pending};

    fn held(entitlement: &mut Entitlement, tokens: i64) -> Option<Hold> {
        let holding = hold_call(entitlement, tokens);
        let hold = pending(entitlement, 1, &holding);
        holding.decision.allowed.then_some(hold)
    }

    #[test]
    fn within_the_limit_it_is_a_request_and_beyond_it_tokens() {
        let mut given = entitlement(Some(1), 100, Overage::Tokens);
        let mut first = held(&mut given, 70).unwrap();
        assert_eq!((given.tally.reserved, given.tokens_available, first.beyond), (1, 100, 0));
        let mut second = held(&mut given, 70).unwrap();
        assert_eq!((given.tally.reserved, given.tokens_available, second.beyond, second.tokens), (1, 30, 1, 70));
        assert_eq!(hold_call(&mut given, 31).decision.reason, Reason::InsufficientTokens);
        let ending = settle_call(&mut first, &mut given, 900).unwrap();
        assert_eq!((ending.overage, ending.tokens_spent, ending.tokens_unpaid), (0, 0, 0));
        let ending = settle_call(&mut second, &mut given, 25).unwrap();
        assert_eq!((ending.overage, ending.tokens_freed, ending.tokens_spent), (1, 70, 25));
        assert_eq!((given.tally.used, given.tally.reserved, given.tally.overage), (2, 0, 1));
        assert_eq!((given.tokens_available, given.tally.against_limit()), (75, 1));
        assert_eq!(settle_call(&mut second, &mut given, 25), Err(HoldRefusal::Ended(HoldStatus::Settled)));
    }

    #[test]
    fn what_the_balance_cannot_pay_is_told() {
        let mut given = entitlement(Some(0), 50, Overage::Tokens);
        let mut call = held(&mut given, 40).unwrap();
        assert_eq!(extend_call(&mut call, &mut given, 51), Ok(None));
        assert_eq!(extend_call(&mut call, &mut given, 45), Ok(Some(5)));
        let ending = settle_call(&mut call, &mut given, 80).unwrap();
        assert_eq!((ending.tokens_spent, ending.tokens_unpaid, given.tokens_available), (50, 30, 0));
    }

    #[test]
    fn a_block_is_a_block() {
        let mut given = entitlement(Some(0), 50, Overage::Block);
        assert_eq!(hold_call(&mut given, 1).decision.reason, Reason::LimitReached);
        let mut unlimited = entitlement(None, 0, Overage::Tokens);
        let mut call = held(&mut unlimited, 1_000_000).unwrap();
        assert_eq!(extend_call(&mut call, &mut unlimited, 5_000_000), Ok(Some(0)));
        assert_eq!(settle_call(&mut call, &mut unlimited, 7).unwrap().tokens_spent, 0);
    }

    proptest! {
        /// For any calls reserved, extended and settled: no token is spent that the balance does not have, and each
        /// token used is spent, unpaid or within the limit.
        #[test]
        fn the_books_of_calls_balance(
            limit in 0_i64..4, tokens in 0_i64..200, pays in any::<bool>(),
            steps in proptest::collection::vec((0_usize..6, 0_i64..120, 0_i64..120), 0..40),
        ) {
            let mut given = entitlement(Some(limit), tokens, if pays { Overage::Tokens } else { Overage::Block });
            let mut calls: Vec<Hold> = Vec::new();
            let (mut spent, mut beyond_used, mut unpaid) = (0, 0, 0);
            for (which, most, used) in steps {
                match (which, calls.get_mut(which)) {
                    (_, None) | (0, _) => calls.extend(held(&mut given, most.max(1))),
                    (1 | 2, Some(call)) => { let _ = extend_call(call, &mut given, most); }
                    (3, Some(call)) => { let _ = super::super::release(call, &mut given); }
                    (_, Some(call)) => {
                        let lies_beyond = call.beyond > 0;
                        if let Ok(ending) = settle_call(call, &mut given, used) {
                            spent += ending.tokens_spent;
                            unpaid += ending.tokens_unpaid;
                            beyond_used += if lies_beyond { used } else { 0 };
                        }
                    }
                }
                let pending = || calls.iter().filter(|call| call.status == HoldStatus::Pending);
                prop_assert_eq!(given.tally.reserved, pending().map(Hold::quota).sum::<i64>());
                prop_assert!(given.tally.against_limit() <= limit);
                prop_assert_eq!(given.tokens_available, tokens - spent - pending().map(|call| call.tokens).sum::<i64>());
                prop_assert!(given.tokens_available >= 0);
                prop_assert_eq!(spent + unpaid, beyond_used);
            }
        }
    }
}
