//! Periods: the span of time in which use is counted.
//!
//! The period is part of a counter's primary key, so no job resets counters: a new period is a new counter. All
//! boundaries are in UTC. The SQL functions `usage_period_start` and `usage_period_end` do the same as
//! [`Period::containing`]; a test over a real Postgres compares them.

use std::str::FromStr;

use chrono::{DateTime, Days, Months, NaiveDate, NaiveTime, Utc};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The span of time that a limit applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeriodKind {
    Day,
    Month,
    /// Months counted from the start of the subscription, or of the profile if there is no subscription.
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

/// One period: from `start` (inclusive) to `end` (exclusive). A lifetime has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    pub kind: PeriodKind,
    pub start: DateTime<Utc>,
    pub end: Option<DateTime<Utc>>,
}

impl Period {
    /// The period of this kind that contains `at`. Only billing periods use `anchor`.
    ///
    /// A billing period anchored on the 31st begins on the last day of shorter months, and on the 31st again after
    /// them: every boundary is the anchor plus a whole number of months, never the previous boundary plus one.
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

/// The same day and time `months` later (or earlier if negative), or the last day of that month if it has no such day.
/// At the ends of chrono's calendar, a quarter of a million years away, the time is returned unchanged.
fn plus_months(at: DateTime<Utc>, months: i32) -> DateTime<Utc> {
    let distance = Months::new(months.unsigned_abs());
    let moved = if months < 0 { at.checked_sub_months(distance) } else { at.checked_add_months(distance) };
    moved.unwrap_or(at)
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

    proptest! {
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
