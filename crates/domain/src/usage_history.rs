//! Usage history: what was used when, in whole hours, days or months of UTC.
//!
//! A requested range is widened to whole buckets, since the stored sums are of whole hours. [`stretch`] bounds how many
//! buckets one query may cover.

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveTime, TimeDelta, Timelike, Utc};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::features::FeatureId;
use crate::usage::PeriodKind;

/// How many days a query without `from` covers.
const DAYS_UNLESS_TOLD: i64 = 30;

/// The span of time that each sum covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageBucket {
    Hour,
    #[default]
    Day,
    Month,
}

impl UsageBucket {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The longest range of one query, as text.
    const fn longest(self) -> &'static str {
        match self {
            Self::Hour => "31 days",
            Self::Day => "400 days",
            Self::Month => "10 years",
        }
    }

    /// The end of the longest range that begins at `from`.
    fn farthest(self, from: DateTime<Utc>) -> DateTime<Utc> {
        let end = match self {
            Self::Hour => from.checked_add_days(Days::new(31)),
            Self::Day => from.checked_add_days(Days::new(400)),
            Self::Month => from.checked_add_months(Months::new(120)),
        };
        end.unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// The start of the bucket that contains `at`.
    pub fn start_of(self, at: DateTime<Utc>) -> DateTime<Utc> {
        let day = at.date_naive();
        match self {
            Self::Hour => midnight(day) + TimeDelta::hours(at.hour().into()),
            Self::Day => midnight(day),
            Self::Month => midnight(day.with_day(1).unwrap_or(day)),
        }
    }

    /// The end of the bucket that begins at `start`.
    pub fn end_of(self, start: DateTime<Utc>) -> DateTime<Utc> {
        let end = match self {
            Self::Hour => start.checked_add_signed(TimeDelta::hours(1)),
            Self::Day => start.checked_add_days(Days::new(1)),
            Self::Month => start.checked_add_months(Months::new(1)),
        };
        end.unwrap_or(start)
    }
}

fn midnight(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}

/// Whole buckets, from the one that begins at `first` to the one that begins at `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    pub bucket: UsageBucket,
    pub first: DateTime<Utc>,
    pub last: DateTime<Utc>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RangeRefused {
    #[error("must be before `to`")]
    Reversed,
    #[error("must be at most {} before `to`, for sums by {}", .0.longest(), .0.as_str())]
    TooLong(UsageBucket),
}

/// The whole buckets that contain the range from `from` (inclusive) to `to` (exclusive). Without `to` the range ends
/// now, and the bucket of now is included; without `from` it begins 30 days before its end.
pub fn stretch(
    bucket: UsageBucket,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<TimeRange, RangeRefused> {
    let end = to.unwrap_or(now);
    let start = from.or_else(|| end.checked_sub_signed(TimeDelta::days(DAYS_UNLESS_TOLD))).unwrap_or(end);
    if start >= end {
        return Err(RangeRefused::Reversed);
    }
    if end > bucket.farthest(start) {
        return Err(RangeRefused::TooLong(bucket));
    }
    let last = bucket.start_of(end);
    // A bucket that begins where the range ends is not part of it.
    let last = if to.is_some() && last == end { bucket.start_of(end - TimeDelta::microseconds(1)) } else { last };
    Ok(TimeRange { bucket, first: bucket.start_of(start), last })
}

/// The use of one feature in one bucket, as counted in one period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageSum {
    pub feature_id: FeatureId,
    /// The start of the bucket.
    pub bucket: DateTime<Utc>,
    pub period: PeriodKind,
    pub period_start: DateTime<Utc>,
    /// With `overage` included.
    pub amount: i64,
    /// The part of `amount` beyond the limit.
    pub overage: i64,
    /// The number of consumptions.
    pub events: i64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).expect(text).to_utc()
    }

    #[test]
    fn a_question_without_a_range_covers_thirty_days_and_now() {
        let now = at("2026-03-15T10:20:30Z");
        let days = stretch(UsageBucket::Day, None, None, now).unwrap();
        assert_eq!((days.first, days.last), (at("2026-02-13T00:00:00Z"), at("2026-03-15T00:00:00Z")));
        let midnight = at("2026-03-15T00:00:00Z");
        assert_eq!(
            stretch(UsageBucket::Day, None, None, midnight).unwrap().last,
            midnight,
            "the bucket of now is in it"
        );
    }

    #[test]
    fn a_range_is_widened_to_whole_buckets_and_ends_before_its_end() {
        let (from, to) = (at("2026-01-31T23:59:59Z"), at("2026-03-01T00:00:00Z"));
        let now = at("2030-01-01T00:00:00Z");
        let months = stretch(UsageBucket::Month, Some(from), Some(to), now).unwrap();
        assert_eq!((months.first, months.last), (at("2026-01-01T00:00:00Z"), at("2026-02-01T00:00:00Z")));
        let hours = stretch(UsageBucket::Hour, Some(from), Some(at("2026-02-01T00:00:01Z")), now).unwrap();
        assert_eq!((hours.first, hours.last), (at("2026-01-31T23:00:00Z"), at("2026-02-01T00:00:00Z")));
    }

    #[test]
    fn a_range_has_a_beginning_and_a_bound_for_each_bucket() {
        let from = at("2026-01-01T00:00:00Z");
        for (bucket, longest) in [
            (UsageBucket::Hour, at("2026-02-01T00:00:00Z")),
            (UsageBucket::Day, at("2027-02-05T00:00:00Z")),
            (UsageBucket::Month, at("2036-01-01T00:00:00Z")),
        ] {
            assert!(stretch(bucket, Some(from), Some(longest), from).is_ok(), "{bucket:?}");
            let beyond = stretch(bucket, Some(from), Some(longest + TimeDelta::seconds(1)), from);
            assert_eq!(beyond, Err(RangeRefused::TooLong(bucket)));
            assert!(beyond.unwrap_err().to_string().contains(bucket.longest()));
            assert_eq!(stretch(bucket, Some(from), Some(from), from), Err(RangeRefused::Reversed));
            assert_eq!(stretch(bucket, Some(longest), None, from), Err(RangeRefused::Reversed));
        }
    }

    proptest! {
        #[test]
        fn a_stretch_holds_its_range_and_little_more(start in 0_i64..4_000_000_000, seconds in 1_i64..2_678_400, now in 0_i64..9) {
            let from = DateTime::from_timestamp(start, 0).unwrap_or_default();
            let to = from + TimeDelta::seconds(seconds);
            let now = DateTime::from_timestamp(now, 0).unwrap_or_default();
            for bucket in [UsageBucket::Hour, UsageBucket::Day, UsageBucket::Month] {
                let TimeRange { first, last, .. } = stretch(bucket, Some(from), Some(to), now).unwrap();
                prop_assert!(first <= from && from < bucket.end_of(first));
                prop_assert!(last < to && to <= bucket.end_of(last));
                prop_assert_eq!(bucket.start_of(last), last);
            }
        }
    }
}
