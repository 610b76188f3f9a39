//! Consumption: the state of a counter, and the result of consuming from it.
//!
//! The SQL function `consume_usage` does the same as [`consume`]; a property test over a real Postgres compares the
//! two.

use crate::entitlements::{Access, Decision, Entitlement, Overage, Reason, decide};

/// The state of one counter. `used` includes `overage`, which is use beyond a reservation or paid with tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterTally {
    pub used: i64,
    pub reserved: i64,
    pub overage: i64,
}

impl CounterTally {
    /// What counts against the limit: used, less overage, plus reserved.
    pub const fn against_limit(self) -> i64 {
        self.used.saturating_sub(self.overage).saturating_add(self.reserved)
    }
}

/// The result of one consumption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumption {
    /// The decision, with the numbers after the grant, or the unchanged numbers if refused.
    pub decision: Decision,
    /// The units of a grant that are beyond the limit and paid with tokens, one token per unit.
    pub overage: i64,
}

/// Consumes `amount`, which must be positive, or returns the reason for refusing it. A grant updates the tally and the
/// tokens of `entitlement`, so the next command of a batch is decided on the result of this one.
pub fn consume(entitlement: &mut Entitlement, amount: i64) -> Consumption {
    let mut decision = decide(entitlement, amount);
    let Some(used) = entitlement.tally.used.checked_add(amount).filter(|_| decision.allowed) else {
        if decision.allowed {
            // Unlimited, but the counter itself ends at 2^63 - 1.
            decision.allowed = false;
            decision.reason = Reason::LimitReached;
        }
        return Consumption { decision, overage: 0 };
    };
    let overage = decision.remaining.map_or(0, |left| amount.saturating_sub(left).max(0));
    entitlement.tally.used = used;
    entitlement.tally.overage += overage;
    entitlement.tokens_available -= overage;
    decision.current = used;
    decision.remaining = entitlement.allowance.remaining(entitlement.tally.against_limit());
    Consumption { decision, overage }
}

/// Whether a consumption would be paid with tokens, at least in part. Then the balance row must be locked.
pub fn needs_tokens(entitlement: &Entitlement, amount: i64) -> bool {
    let left = entitlement.allowance.remaining(entitlement.tally.against_limit());
    entitlement.access == Access::Granted
        && entitlement.overage == Overage::Tokens
        && left.is_some_and(|left| amount > left)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::usage::testing::entitlement;

    #[test]
    fn a_counter_ends_before_it_overflows() {
        let mut unlimited = entitlement(None, 0, Overage::Block);
        assert!(consume(&mut unlimited, i64::MAX).decision.allowed);
        let refused = consume(&mut unlimited, 1).decision;
        assert_eq!((refused.allowed, refused.reason, refused.current), (false, Reason::LimitReached, i64::MAX));
    }

    #[test]
    fn what_lies_beyond_the_limit_is_paid_for_once() {
        let mut paid = entitlement(Some(5), 4, Overage::Tokens);
        assert_eq!(consume(&mut paid, 4).overage, 0);
        assert!(needs_tokens(&paid, 3) && !needs_tokens(&paid, 1));
        let beyond = consume(&mut paid, 3);
        assert_eq!((beyond.overage, beyond.decision.current, beyond.decision.remaining), (2, 7, Some(0)));
        assert_eq!(consume(&mut paid, 3).decision.reason, Reason::InsufficientTokens);
        assert_eq!((consume(&mut paid, 2).overage, paid.tokens_available), (2, 0));
    }

    proptest! {
        #[test]
        fn successes_are_exactly_what_the_limit_and_the_tokens_hold(
            limit in 0_i64..200, tokens in 0_i64..100, pays in any::<bool>(), amounts in proptest::collection::vec(1_i64..20, 0..60),
        ) {
            let mut given = entitlement(Some(limit), tokens, if pays { Overage::Tokens } else { Overage::Block });
            let (mut used, mut spent) = (0, 0);
            for amount in amounts {
                let fits = used - spent + amount <= limit + if pays { tokens - spent } else { 0 };
                let came = consume(&mut given, amount);
                prop_assert_eq!(came.decision.allowed, fits);
                if fits {
                    used += amount;
                    spent += came.overage;
                }
                prop_assert_eq!(came.decision.current, used);
                prop_assert!(used - spent <= limit && spent <= tokens);
                prop_assert_eq!((given.tally.used, given.tally.overage, given.tokens_available), (used, spent, tokens - spent));
            }
        }
    }
}
