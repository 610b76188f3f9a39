//! Entitlements: whether a user may use a feature now, and how much of it.
//!
//! [`decide`] is the only rule. The feature check, the entitlement check, the own plan and consumption all use it. The
//! SQL functions `check_feature_access` and `check_usage_limit` do the same for clients that query the database
//! directly; a test compares them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::features::FeatureId;
use crate::plans::PlanId;
use crate::usage::{CounterTally, Period};
use crate::users::UserId;

/// How much of a feature may be used in a period. A limit of 0 is a limit; only the absence of one is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    Limited(i64),
    Unlimited,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a limit must not be negative; leave it null for unlimited")]
pub struct NegativeLimit;

impl Allowance {
    /// From a nullable column: null is unlimited.
    pub const fn try_new(limit_value: Option<i64>) -> Result<Self, NegativeLimit> {
        match limit_value {
            None => Ok(Self::Unlimited),
            Some(limit) if limit >= 0 => Ok(Self::Limited(limit)),
            Some(_) => Err(NegativeLimit),
        }
    }

    pub const fn limit(self) -> Option<i64> {
        match self {
            Self::Limited(limit) => Some(limit),
            Self::Unlimited => None,
        }
    }

    /// What remains of the limit after `against_limit`, never below zero; `None` is unlimited.
    pub fn remaining(self, against_limit: i64) -> Option<i64> {
        self.limit().map(|limit| limit.saturating_sub(against_limit).max(0))
    }
}

/// What happens at the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overage {
    /// Use is refused until the period ends.
    Block,
    /// Use continues, at one token for each unit beyond the limit.
    Tokens,
}

impl Overage {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Tokens => "tokens",
        }
    }
}

/// Where an entitlement comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    Plan,
    Override,
}

/// Whether the user has the feature at all, before any counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Granted,
    /// The feature is disabled: for all users, or for this user by an override.
    Disabled,
    /// The plan in force does not include it.
    NotInPlan,
    /// The user's paid plan includes it, but the subscription has lapsed.
    SubscriptionLapsed,
}

/// All that a decision depends on, read at one time (`as_of`, by the database's clock).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entitlement {
    pub feature_id: FeatureId,
    pub plan_id: PlanId,
    pub source: Source,
    pub access: Access,
    pub allowance: Allowance,
    pub overage: Overage,
    pub period: Period,
    pub tally: CounterTally,
    /// Tokens that can be spent now: the balance less what is reserved.
    pub tokens_available: i64,
    pub as_of: DateTime<Utc>,
}

/// The state of a counter and of the user's tokens at one time, read separately or left by a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub tally: CounterTally,
    /// Tokens that can be spent: the balance less what is reserved.
    pub tokens_available: i64,
    pub as_of: DateTime<Utc>,
}

impl Entitlement {
    /// The same entitlement with another count. `as_of` becomes the older of the two.
    #[must_use]
    pub fn counted(self, count: &Count) -> Self {
        let Count { tally, tokens_available, as_of } = *count;
        Self { tally, tokens_available, as_of: self.as_of.min(as_of), ..self }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    Ok,
    FeatureDisabled,
    FeatureNotInPlan,
    LimitReached,
    InsufficientTokens,
    SubscriptionInactive,
}

/// The decision, with every number that it is based on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: Reason,
    pub feature_id: FeatureId,
    /// The amount used in the period, overage included. What is reserved is in `reserved`.
    pub current: i64,
    /// `None` is unlimited.
    pub limit: Option<i64>,
    /// `None` is unlimited; never below zero.
    pub remaining: Option<i64>,
    pub reserved: i64,
    pub plan_id: PlanId,
    pub source: Source,
    pub period_start: DateTime<Utc>,
    /// When the counter starts again; `None` for a lifetime.
    pub resets_at: Option<DateTime<Utc>>,
    pub as_of: DateTime<Utc>,
}

/// Whether `amount` more may be used now. `amount` must be positive. Changes nothing.
pub fn decide(entitlement: &Entitlement, amount: i64) -> Decision {
    let remaining = entitlement.allowance.remaining(entitlement.tally.against_limit());
    let reason = match entitlement.access {
        Access::Disabled => Reason::FeatureDisabled,
        Access::NotInPlan => Reason::FeatureNotInPlan,
        Access::SubscriptionLapsed => Reason::SubscriptionInactive,
        Access::Granted => match remaining {
            None => Reason::Ok,
            Some(remaining) if amount <= remaining => Reason::Ok,
            Some(_) if entitlement.overage == Overage::Block => Reason::LimitReached,
            Some(remaining) if amount.saturating_sub(remaining) <= entitlement.tokens_available => Reason::Ok,
            Some(_) => Reason::InsufficientTokens,
        },
    };
    Decision {
        allowed: reason == Reason::Ok,
        reason,
        feature_id: entitlement.feature_id.clone(),
        current: entitlement.tally.used,
        limit: entitlement.allowance.limit(),
        remaining,
        reserved: entitlement.tally.reserved,
        plan_id: entitlement.plan_id.clone(),
        source: entitlement.source,
        period_start: entitlement.period.start,
        resets_at: entitlement.period.end,
        as_of: entitlement.as_of,
    }
}

/// An exception for one user: until it expires, it replaces the plan's `enabled` and limit, both of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureOverride {
    pub user_id: UserId,
    pub feature_id: FeatureId,
    pub enabled: bool,
    pub allowance: Allowance,
    pub reason: Option<String>,
    pub expires_at: Option<DateTime<Utc>>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::usage::PeriodKind;

    fn entitlement(allowance: Allowance, tally: CounterTally) -> Entitlement {
        let as_of = DateTime::UNIX_EPOCH;
        Entitlement {
            feature_id: FeatureId::parse("ai_requests").unwrap_or_else(|error| panic!("{error}")),
            plan_id: PlanId::free(),
            source: Source::Plan,
            access: Access::Granted,
            allowance,
            overage: Overage::Block,
            period: Period::containing(PeriodKind::Month, as_of, as_of),
            tally,
            tokens_available: 0,
            as_of,
        }
    }

    #[test]
    fn a_limit_of_zero_is_not_unlimited() {
        assert_eq!(
            decide(&entitlement(Allowance::Limited(0), CounterTally::default()), 1).reason,
            Reason::LimitReached
        );
        assert_eq!(decide(&entitlement(Allowance::Unlimited, CounterTally::default()), i64::MAX).reason, Reason::Ok);
    }

    #[test]
    fn a_downgrade_below_the_use_leaves_nothing_and_no_debt() {
        let decision =
            decide(&entitlement(Allowance::Limited(10), CounterTally { used: 25, reserved: 0, overage: 0 }), 1);
        assert_eq!((decision.allowed, decision.current, decision.remaining), (false, 25, Some(0)));
    }

    #[test]
    fn use_that_was_paid_for_does_not_count_against_the_limit() {
        let decision =
            decide(&entitlement(Allowance::Limited(10), CounterTally { used: 12, reserved: 1, overage: 4 }), 1);
        assert_eq!((decision.allowed, decision.current, decision.remaining), (true, 12, Some(1)));
    }

    #[test]
    fn tokens_pay_one_unit_each_beyond_the_limit() {
        let mut paid = entitlement(Allowance::Limited(10), CounterTally { used: 8, reserved: 0, overage: 0 });
        paid.overage = Overage::Tokens;
        paid.tokens_available = 3;
        assert_eq!(decide(&paid, 5).reason, Reason::Ok);
        assert_eq!(decide(&paid, 6).reason, Reason::InsufficientTokens);
    }

    #[test]
    fn access_comes_before_counting() {
        for (access, reason) in [
            (Access::Disabled, Reason::FeatureDisabled),
            (Access::NotInPlan, Reason::FeatureNotInPlan),
            (Access::SubscriptionLapsed, Reason::SubscriptionInactive),
        ] {
            let refused = Entitlement { access, ..entitlement(Allowance::Unlimited, CounterTally::default()) };
            assert_eq!(decide(&refused, 1).reason, reason);
        }
    }

    #[test]
    fn a_recounted_entitlement_is_as_old_as_its_oldest_part() {
        let facts = entitlement(Allowance::Limited(10), CounterTally::default());
        let tally = CounterTally { used: 3, reserved: 0, overage: 0 };
        let (before, after) = (facts.as_of - chrono::TimeDelta::hours(1), facts.as_of + chrono::TimeDelta::hours(1));
        let counted = |as_of| facts.clone().counted(&Count { tally, tokens_available: 7, as_of });
        assert_eq!((counted(after).tally, counted(after).tokens_available), (tally, 7));
        assert_eq!((counted(after).as_of, counted(before).as_of), (facts.as_of, before));
    }

    proptest! {
        #[test]
        fn nothing_is_granted_beyond_the_limit(
            limit in 0_i64..1_000, used in 0_i64..1_500, reserved in 0_i64..500, amount in 1_i64..1_500, tokens in 0_i64..100, pays in any::<bool>(),
        ) {
            let mut given = entitlement(Allowance::Limited(limit), CounterTally { used, reserved, overage: 0 });
            given.tokens_available = tokens;
            given.overage = if pays { Overage::Tokens } else { Overage::Block };
            let decision = decide(&given, amount);
            let beyond = (used + reserved + amount - limit.max(used + reserved)).max(0).min(amount);
            prop_assert_eq!(decision.allowed, beyond == 0 || (pays && beyond <= tokens));
            prop_assert_eq!(decision.remaining, Some((limit - used - reserved).max(0)));
            prop_assert_eq!(decision.allowed, decision.reason == Reason::Ok);
        }

        #[test]
        fn asking_for_less_is_never_refused_where_more_is_granted(limit in 0_i64..100, used in 0_i64..100, amount in 2_i64..100) {
            let given = entitlement(Allowance::Limited(limit), CounterTally { used, reserved: 0, overage: 0 });
            if decide(&given, amount).allowed {
                prop_assert!(decide(&given, amount - 1).allowed);
            }
        }
    }
}
