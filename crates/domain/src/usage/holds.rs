//! Reservations (`Hold`): an amount is reserved before it is used, then settled, released or expired.
//!
//! A reservation counts against the limit as if it were used, so the amount that it covers can always be settled. Its
//! part beyond the limit reserves the user's tokens. It ends once: settled with the amount really used, released, or
//! expired. Use is never lost: use above the reserved amount is counted as `used` and as `overage`, and so is use that
//! is settled after the reservation expired and no longer fits under the limit.
//!
//! Every rule takes the entitlement of the counter that the reservation is on, which is that of the period in which it
//! was made. The caller holds the lock on it. The rule changes it in place.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::{PeriodKind, ReservedCallState, needs_tokens};
use crate::entitlements::{Decision, Entitlement, Overage, Reason, decide};
use crate::features::FeatureId;
use crate::users::UserId;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HoldId(pub Uuid);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldStatus {
    Pending,
    Settled,
    Released,
    /// Its time ended before it was settled. It can still be settled.
    Expired,
}

impl HoldStatus {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Settled => "settled",
            Self::Released => "released",
            Self::Expired => "expired",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not a status of a hold: pending, settled, released or expired")]
pub struct UnknownHoldStatus(pub String);

impl FromStr for HoldStatus {
    type Err = UnknownHoldStatus;

    fn from_str(text: &str) -> Result<Self, UnknownHoldStatus> {
        [Self::Pending, Self::Settled, Self::Released, Self::Expired]
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownHoldStatus(text.to_owned()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    pub id: HoldId,
    pub user_id: UserId,
    pub feature_id: FeatureId,
    /// The period in which it was made and in which it is settled.
    pub period_kind: PeriodKind,
    pub period_start: DateTime<Utc>,
    /// The whole reserved amount.
    pub amount: i64,
    /// The part of `amount` beyond the limit, which is paid with the user's tokens.
    pub beyond: i64,
    /// The reserved tokens: one for each unit beyond the limit; for a model call, all that the call can use.
    pub tokens: i64,
    pub status: HoldStatus,
    /// The amount really used, once it is settled.
    pub settled: Option<i64>,
    /// The part of `settled` beyond the limit or the reservation.
    pub overage: i64,
    pub expires_at: DateTime<Utc>,
    pub api_key_id: Option<Uuid>,
    /// The model call that it is for, if any.
    pub call: Option<Box<ReservedCallState>>,
}

impl Hold {
    /// The part that counts against the limit.
    pub const fn quota(&self) -> i64 {
        self.amount - self.beyond
    }

    /// Whether ending it with `used` changes the token balance, so that the balance row must be locked.
    pub fn moves_tokens(&self, entitlement: &Entitlement, used: i64) -> bool {
        let spends =
            entitlement.overage == Overage::Tokens && (used > self.quota() || self.status == HoldStatus::Expired);
        self.tokens > 0 || spends
    }
}

/// The result of a request for a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldOutcome {
    /// The decision, with the numbers after the grant, or the unchanged numbers if refused.
    pub decision: Decision,
    /// The part of a grant beyond the limit.
    pub beyond: i64,
    /// The tokens reserved for it: one per unit, unless it is a model call.
    pub tokens: i64,
}

/// The result of ending a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldEnding {
    /// The counter after it.
    pub decision: Decision,
    /// The amount used, and in `overage` the part of it beyond the limit or the reservation.
    pub used: i64,
    pub overage: i64,
    /// How many of the reserved tokens are no longer reserved.
    pub tokens_freed: i64,
    /// How many tokens were spent.
    pub tokens_spent: i64,
}

/// Why a reservation cannot be changed this way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HoldRefusal {
    #[error("the hold is {} already", .0.as_str())]
    Ended(HoldStatus),
    #[error("a counter cannot count that far")]
    CounterFull,
}

/// Reserves `amount`, which must be positive, or returns the reason for refusing it. It reserves all or nothing.
pub fn hold(entitlement: &mut Entitlement, amount: i64) -> HoldOutcome {
    let mut decision = decide(entitlement, amount);
    let tally = entitlement.tally;
    // The whole reserved amount must still fit in the counter when it is used.
    let fits = tally.used.checked_add(tally.reserved).and_then(|sum| sum.checked_add(amount)).is_some();
    if decision.allowed && !fits {
        decision.allowed = false;
        decision.reason = Reason::LimitReached;
    }
    if !decision.allowed {
        return HoldOutcome { decision, beyond: 0, tokens: 0 };
    }
    let tokens = decision.remaining.map_or(0, |left| amount.saturating_sub(left).max(0));
    entitlement.tally.reserved += amount - tokens;
    entitlement.tokens_available -= tokens;
    decision.reserved = entitlement.tally.reserved;
    decision.remaining = entitlement.allowance.remaining(entitlement.tally.against_limit());
    HoldOutcome { decision, beyond: tokens, tokens }
}

/// Extends a pending reservation to `amount` in total; it never shrinks. If the additional amount is refused, nothing
/// changes.
pub fn extend(held: &mut Hold, entitlement: &mut Entitlement, amount: i64) -> Result<HoldOutcome, HoldRefusal> {
    if held.status != HoldStatus::Pending {
        return Err(HoldRefusal::Ended(held.status));
    }
    let more = amount.saturating_sub(held.amount);
    if more <= 0 {
        return Ok(HoldOutcome { decision: current_decision(entitlement), beyond: 0, tokens: 0 });
    }
    let holding = hold(entitlement, more);
    if holding.decision.allowed {
        held.amount += more;
        held.beyond += holding.beyond;
        held.tokens += holding.tokens;
    }
    Ok(holding)
}

/// Whether extending to `amount` would reserve tokens, at least for a part.
pub fn extending_needs_tokens(held: &Hold, entitlement: &Entitlement, amount: i64) -> bool {
    amount > held.amount && needs_tokens(entitlement, amount - held.amount)
}

/// Settles the reservation with the amount really used: unused units are returned, additional ones are counted too.
///
/// Up to the quota of the reservation counts against the limit; the rest is overage. Overage is paid with the reserved
/// tokens first. Where the feature is paid with tokens, overage that exceeds them and the limit is paid from the
/// balance as far as it goes. An expired reservation covers nothing: of its quota, only what still fits under the limit
/// counts against it.
pub fn settle(held: &mut Hold, entitlement: &mut Entitlement, used: i64) -> Result<HoldEnding, HoldRefusal> {
    let covers = match held.status {
        HoldStatus::Pending => true,
        HoldStatus::Expired => false,
        ended => return Err(HoldRefusal::Ended(ended)),
    };
    let used_after = entitlement.tally.used.checked_add(used).ok_or(HoldRefusal::CounterFull)?;
    let left = |entitlement: &Entitlement| entitlement.allowance.remaining(entitlement.tally.against_limit());
    let tokens_freed = if covers { free(held, entitlement) } else { 0 };
    let within = match left(entitlement) {
        Some(left) if !covers => used.min(held.quota()).min(left),
        _ => used.min(held.quota()),
    };
    let overage = used - within;
    entitlement.tally.used = used_after;
    entitlement.tally.overage += overage;
    let paid_by_hold = overage.min(tokens_freed);
    let unpaid = match (entitlement.overage, left(entitlement)) {
        (Overage::Tokens, Some(left)) => (overage - paid_by_hold - left).max(0),
        _ => 0,
    };
    let tokens_spent = paid_by_hold + unpaid.min(entitlement.tokens_available - paid_by_hold).max(0);
    entitlement.tokens_available -= tokens_spent;
    held.status = HoldStatus::Settled;
    held.settled = Some(used);
    held.overage = overage;
    Ok(HoldEnding { decision: current_decision(entitlement), used, overage, tokens_freed, tokens_spent })
}

/// Returns everything: nothing was used. After the reservation expired there is nothing to return.
pub fn release(held: &mut Hold, entitlement: &mut Entitlement) -> Result<HoldEnding, HoldRefusal> {
    let tokens_freed = match held.status {
        HoldStatus::Pending => free(held, entitlement),
        HoldStatus::Expired => 0,
        ended => return Err(HoldRefusal::Ended(ended)),
    };
    held.status = HoldStatus::Released;
    Ok(HoldEnding { decision: current_decision(entitlement), used: 0, overage: 0, tokens_freed, tokens_spent: 0 })
}

/// Returns what was not settled in time.
pub fn expire(held: &mut Hold, entitlement: &mut Entitlement) -> Result<HoldEnding, HoldRefusal> {
    if held.status != HoldStatus::Pending {
        return Err(HoldRefusal::Ended(held.status));
    }
    let tokens_freed = free(held, entitlement);
    held.status = HoldStatus::Expired;
    Ok(HoldEnding { decision: current_decision(entitlement), used: 0, overage: 0, tokens_freed, tokens_spent: 0 })
}

/// Takes the reservation off the counter and the token balance; returns the number of tokens.
pub(super) fn free(held: &Hold, entitlement: &mut Entitlement) -> i64 {
    entitlement.tally.reserved -= held.quota();
    entitlement.tokens_available += held.tokens;
    held.tokens
}

/// The current numbers. Nothing is requested (the amount was settled or returned), so the decision is "allowed".
pub(super) fn current_decision(entitlement: &Entitlement) -> Decision {
    Decision { allowed: true, reason: Reason::Ok, ..decide(entitlement, 1) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::usage::testing::{entitlement, pending};

    fn held(entitlement: &mut Entitlement, amount: i64) -> Hold {
        let holding = hold(entitlement, amount);
        assert!(holding.decision.allowed, "{holding:?}");
        pending(entitlement, amount, &holding)
    }

    /// `(used, reserved, overage)`
    fn numbers(entitlement: &Entitlement) -> (i64, i64, i64) {
        (entitlement.tally.used, entitlement.tally.reserved, entitlement.tally.overage)
    }

    #[test]
    fn what_is_held_is_there_when_it_is_used() {
        let mut given = entitlement(Some(10), 0, Overage::Block);
        let mut eight = held(&mut given, 8);
        assert_eq!(hold(&mut given, 3).decision.reason, Reason::LimitReached);
        let less = settle(&mut eight, &mut given, 5).unwrap();
        assert_eq!((numbers(&given), less.decision.remaining, less.overage), ((5, 0, 0), Some(5), 0));
        assert_eq!(settle(&mut eight, &mut given, 5), Err(HoldRefusal::Ended(HoldStatus::Settled)));
        let mut two = held(&mut given, 2);
        let more = settle(&mut two, &mut given, 6).unwrap();
        assert_eq!((numbers(&given), more.decision.remaining, more.overage), ((11, 0, 4), Some(3), 4));
    }

    #[test]
    fn an_expired_hold_does_not_erase_what_was_used() {
        let mut given = entitlement(Some(10), 0, Overage::Block);
        let mut late = held(&mut given, 6);
        expire(&mut late, &mut given).unwrap();
        assert_eq!(numbers(&given), (0, 0, 0));
        let _others = held(&mut given, 7);
        let ending = settle(&mut late, &mut given, 8).unwrap();
        // Three more fit under the limit beside the other reservation.
        assert_eq!((numbers(&given), ending.overage, ending.decision.remaining), ((8, 7, 5), 5, Some(0)));
        assert_eq!(release(&mut late, &mut given), Err(HoldRefusal::Ended(HoldStatus::Settled)));
    }

    #[test]
    fn the_part_beyond_the_limit_lies_on_the_tokens() {
        let mut given = entitlement(Some(5), 10, Overage::Tokens);
        let mut paid = held(&mut given, 8);
        assert_eq!((paid.tokens, given.tokens_available, numbers(&given)), (3, 7, (0, 5, 0)));
        assert_eq!(hold(&mut given, 8).decision.reason, Reason::InsufficientTokens);
        let ending = settle(&mut paid, &mut given, 6).unwrap();
        assert_eq!((ending.tokens_freed, ending.tokens_spent, given.tokens_available), (3, 1, 9));
        assert_eq!(numbers(&given), (6, 0, 1));
        // Use beyond the reservation is paid as far as the balance goes.
        let mut short = held(&mut given, 1);
        let ending = settle(&mut short, &mut given, 20).unwrap();
        assert_eq!((ending.overage, ending.tokens_spent, given.tokens_available), (20, 9, 0));
    }

    #[test]
    fn extending_says_the_whole_and_a_refusal_changes_nothing() {
        let mut given = entitlement(Some(10), 0, Overage::Block);
        let mut growing = held(&mut given, 4);
        assert!(extend(&mut growing, &mut given, 9).unwrap().decision.allowed);
        assert!(extend(&mut growing, &mut given, 9).unwrap().decision.allowed, "the same again is the same");
        assert!(!extend(&mut growing, &mut given, 11).unwrap().decision.allowed);
        assert!(extend(&mut growing, &mut given, 2).unwrap().decision.allowed, "it never gets smaller");
        assert_eq!((growing.amount, numbers(&given)), (9, (0, 9, 0)));
        release(&mut growing, &mut given).unwrap();
        assert_eq!(numbers(&given), (0, 0, 0));
        assert_eq!(extend(&mut growing, &mut given, 9), Err(HoldRefusal::Ended(HoldStatus::Released)));
    }

    #[test]
    fn what_is_held_always_fits_the_counter() {
        let mut unlimited = entitlement(None, 0, Overage::Block);
        let mut whole = held(&mut unlimited, i64::MAX);
        assert_eq!(hold(&mut unlimited, 1).decision.reason, Reason::LimitReached);
        assert!(settle(&mut whole, &mut unlimited, i64::MAX).is_ok());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Hold(i64),
        Settle(usize, i64),
        Release(usize),
        Expire(usize),
        Extend(usize, i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1_i64..20).prop_map(Step::Hold),
            (0_usize..8, 0_i64..30).prop_map(|(which, used)| Step::Settle(which, used)),
            (0_usize..8).prop_map(Step::Release),
            (0_usize..8).prop_map(Step::Expire),
            (0_usize..8, 1_i64..40).prop_map(|(which, amount)| Step::Extend(which, amount)),
        ]
    }

    proptest! {
        /// For any sequence of steps: no more than the limit counts against it, no token is spent that the balance does
        /// not have, `reserved` is the sum of pending reservations, and `used` is the sum of settled amounts.
        #[test]
        fn the_books_balance(
            limit in 0_i64..60, tokens in 0_i64..40, pays in any::<bool>(), steps in proptest::collection::vec(step(), 0..60),
        ) {
            let mut given = entitlement(Some(limit), tokens, if pays { Overage::Tokens } else { Overage::Block });
            let mut holds: Vec<Hold> = Vec::new();
            let mut spent = 0;
            for step in steps {
                let ending = match step {
                    Step::Hold(amount) => {
                        if decide(&given, amount).allowed {
                            holds.push(held(&mut given, amount));
                        }
                        continue;
                    }
                    Step::Extend(which, amount) => {
                        if let Some(which) = holds.get_mut(which) {
                            let _ = extend(which, &mut given, amount);
                        }
                        continue;
                    }
                    Step::Settle(which, used) => holds.get_mut(which).map(|which| settle(which, &mut given, used)),
                    Step::Release(which) => holds.get_mut(which).map(|which| release(which, &mut given)),
                    Step::Expire(which) => holds.get_mut(which).map(|which| expire(which, &mut given)),
                };
                if let Some(Ok(ending)) = ending {
                    spent += ending.tokens_spent;
                }
                let pending = || holds.iter().filter(|hold| hold.status == HoldStatus::Pending);
                prop_assert_eq!(given.tally.reserved, pending().map(Hold::quota).sum::<i64>());
                prop_assert_eq!(given.tally.used, holds.iter().filter_map(|hold| hold.settled).sum::<i64>());
                prop_assert!(given.tally.against_limit() <= limit, "{:?}", given.tally);
                prop_assert_eq!(given.tokens_available, tokens - spent - pending().map(|hold| hold.tokens).sum::<i64>());
                prop_assert!(given.tokens_available >= 0);
            }
        }
    }
}
