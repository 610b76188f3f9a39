//! Usage: in which period a use is counted, and what a counter says.
//!
//! The period is part of a counter's key, so nothing is ever reset by a job: a new period is a new counter.
//! All boundaries are in UTC. The SQL functions `usage_period_start` and `usage_period_end` are the twins of
//! [`Period::containing`]; a test over real Postgres holds them equal.

use std::str::FromStr;

use chrono::{DateTime, Days, Months, NaiveDate, NaiveTime, Utc};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::entitlements::{Access, Decision, Entitlement, Overage, Reason, decide};

/// Over which stretch of time a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeriodKind {
    Day,
    Month,
    /// Months counted from the start of the subscription, else of the profile.
    BillingPeriod,
    Lifetime,
}

impl PeriodKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
            Self::BillingPeriod => "billing_period",
            Self::Lifetime => "lifetime",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not a period: day, month, billing_period or lifetime")]
pub struct UnknownPeriod(pub String);

impl FromStr for PeriodKind {
    type Err = UnknownPeriod;

    fn from_str(text: &str) -> Result<Self, UnknownPeriod> {
        [Self::Day, Self::Month, Self::BillingPeriod, Self::Lifetime]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownPeriod(text.to_owned()))
    }
}

/// One stretch of counting: from `start` up to, not including, `end`. A lifetime has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    pub kind: PeriodKind,
    pub start: DateTime<Utc>,
    pub end: Option<DateTime<Utc>>,
}

impl Period {
    /// The period of this kind that contains `at`. `anchor` matters to billing periods only.
    ///
    /// A billing period that is anchored on the 31st begins on the last day of shorter months, and on the 31st
    /// again after: every boundary is the anchor plus a whole number of months, never the last boundary plus one.
    pub fn containing(kind: PeriodKind, anchor: DateTime<Utc>, at: DateTime<Utc>) -> Self {
        match kind {
            PeriodKind::Day => {
                let start = midnight(at.date_naive());
                Self { kind, start, end: Some(start + Days::new(1)) }
            }
            PeriodKind::Month => {
                let start = midnight(first_of_month(at.date_naive()));
                Self { kind, start, end: Some(plus_months(start, 1)) }
            }
            PeriodKind::BillingPeriod => {
                let mut elapsed = months_since_year_zero(at) - months_since_year_zero(anchor);
                if plus_months(anchor, elapsed) > at {
                    elapsed -= 1;
                }
                Self { kind, start: plus_months(anchor, elapsed), end: Some(plus_months(anchor, elapsed + 1)) }
            }
            PeriodKind::Lifetime => Self { kind, start: DateTime::UNIX_EPOCH, end: None },
        }
    }
}

fn midnight(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}

fn first_of_month(day: NaiveDate) -> NaiveDate {
    use chrono::Datelike;
    day.with_day(1).unwrap_or(day)
}

fn months_since_year_zero(at: DateTime<Utc>) -> i32 {
    use chrono::Datelike;
    at.year() * 12 + at.month0().cast_signed()
}

/// The same day and time `months` later (or earlier), or the last day of that month where there is no such day.
/// At the ends of chrono's calendar, a quarter of a million years away, the time stays as it is.
fn plus_months(at: DateTime<Utc>, months: i32) -> DateTime<Utc> {
    let distance = Months::new(months.unsigned_abs());
    let moved = if months < 0 { at.checked_sub_months(distance) } else { at.checked_add_months(distance) };
    moved.unwrap_or(at)
}

/// What one counter holds. `used` includes `overage`: use beyond a hold, or paid for with tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub used: i64,
    pub reserved: i64,
    pub overage: i64,
}

impl Tally {
    /// What stands against the limit: used, less what was paid for beyond it, plus what is held.
    pub const fn against_limit(self) -> i64 {
        self.used.saturating_sub(self.overage).saturating_add(self.reserved)
    }
}

/// What one consumption came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumption {
    /// The answer, with the numbers as they are after a grant, or as they stand where there was none.
    pub decision: Decision,
    /// How much of a grant lies beyond the limit and is paid for with tokens, one each.
    pub overage: i64,
}

/// Consumes `amount`, which is positive, or says why not. A grant is added to the tally and taken from the tokens of
/// `entitlement`, so that the next command of a batch is decided on what this one left.
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

/// Whether a consumption would have to be paid for with tokens, at least in part. It needs the balance under its lock.
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

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).expect(text).to_utc()
    }

    #[test]
    fn a_billing_period_survives_short_months() {
        let anchor = at("2026-01-31T10:00:00Z");
        let period = |now| Period::containing(PeriodKind::BillingPeriod, anchor, at(now));
        assert_eq!(period("2026-02-28T09:59:59Z").start, anchor);
        assert_eq!(period("2026-02-28T10:00:00Z").start, at("2026-02-28T10:00:00Z"));
        assert_eq!(period("2026-02-28T10:00:00Z").end, Some(at("2026-03-31T10:00:00Z")));
        assert_eq!(period("2028-03-01T00:00:00Z").start, at("2028-02-29T10:00:00Z"));
        assert_eq!(period("2025-12-31T09:00:00Z").start, at("2025-11-30T10:00:00Z"));
    }

    #[test]
    fn a_day_and_a_month_are_utc() {
        let now = at("2026-12-31T23:59:59Z");
        assert_eq!(Period::containing(PeriodKind::Day, now, now).end, Some(at("2027-01-01T00:00:00Z")));
        assert_eq!(Period::containing(PeriodKind::Month, now, now).start, at("2026-12-01T00:00:00Z"));
        assert_eq!(Period::containing(PeriodKind::Lifetime, now, now).end, None);
    }

    fn entitlement(limit: Option<i64>, tokens: i64, overage: Overage) -> Entitlement {
        let as_of = DateTime::UNIX_EPOCH;
        Entitlement {
            feature_id: crate::features::FeatureId::parse("ai_requests").unwrap(),
            plan_id: crate::plans::PlanId::free(),
            source: crate::entitlements::Source::Plan,
            access: Access::Granted,
            allowance: crate::entitlements::Allowance::try_new(limit).unwrap(),
            overage,
            period: Period::containing(PeriodKind::Month, as_of, as_of),
            tally: Tally::default(),
            tokens_available: tokens,
            as_of,
        }
    }

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

        #[test]
        fn a_period_contains_its_moment_and_touches_the_next(anchor in 0_i64..4_000_000_000, now in 0_i64..4_000_000_000) {
            let anchor = DateTime::from_timestamp(anchor, 0).unwrap_or_default();
            let now = DateTime::from_timestamp(now, 0).unwrap_or_default();
            for kind in [PeriodKind::Day, PeriodKind::Month, PeriodKind::BillingPeriod] {
                let period = Period::containing(kind, anchor, now);
                let end = period.end.unwrap_or_default();
                prop_assert!(period.start <= now && now < end);
                prop_assert_eq!(Period::containing(kind, anchor, end).start, end);
                prop_assert_eq!(Period::containing(kind, anchor, period.start), period);
            }
        }
    }
}
