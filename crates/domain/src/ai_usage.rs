//! AI usage: what model calls used and cost, summed over a time range.

use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use thiserror::Error;

use crate::ai::ProviderId;
use crate::prices::NanoUsd;
use crate::usage_history::UsageBucket;

/// The longest range of one query.
const DAYS_MAX: u64 = 400;

/// How many models are listed in one response; the others are summed up.
pub const MODELS_SHOWN: u64 = 100;

/// A range that includes `from` and excludes `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AiUsageRange {
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AiRangeRefused {
    #[error("must be before `to`")]
    Reversed,
    #[error("must be at most {DAYS_MAX} days before `to`")]
    TooLong,
}

/// The range of a query. Without bounds it is the current UTC calendar month. With `from` only, it ends now. With `to`
/// only, it begins with the month that it ends in.
pub fn range(
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<AiUsageRange, AiRangeRefused> {
    let month_of = |at| UsageBucket::Month.start_of(at);
    let (from, to) = match (from, to) {
        (None, None) => (month_of(now), UsageBucket::Month.end_of(month_of(now))),
        (Some(from), None) => (from, now),
        (None, Some(to)) => (month_of(to.checked_sub_signed(TimeDelta::microseconds(1)).unwrap_or(to)), to),
        (Some(from), Some(to)) => (from, to),
    };
    if from >= to {
        return Err(AiRangeRefused::Reversed);
    }
    let farthest = from.checked_add_days(Days::new(DAYS_MAX)).unwrap_or(DateTime::<Utc>::MAX_UTC);
    if to > farthest { Err(AiRangeRefused::TooLong) } else { Ok(AiUsageRange { from, to }) }
}

/// The sums of some calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AiTotals {
    pub requests: i64,
    /// Of the prompts, cached or not.
    pub input_tokens: i64,
    pub output_tokens: i64,
    /// The part of the prompts read from a cache.
    pub cached_tokens: i64,
    /// The tokens that were charged.
    pub total_tokens: i64,
    pub cost: NanoUsd,
}

/// The sums of the calls of one group: a provider, a model, a day or a month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AiUsageOf<K> {
    pub of: K,
    pub totals: AiTotals,
}

/// A model as recorded with its calls; the name may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedModel {
    pub provider: ProviderId,
    pub model: Option<String>,
}

/// The sums of the same calls, in total and grouped in four ways. Providers and models are sorted by cost, highest
/// first; days and months by time, latest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AiUsageSums {
    pub all: AiTotals,
    pub by_provider: Vec<AiUsageOf<ProviderId>>,
    /// At most [`MODELS_SHOWN`].
    pub by_model: Vec<AiUsageOf<RecordedModel>>,
    /// The sum of all further models, if there are any.
    pub other_models: Option<AiTotals>,
    /// UTC days with at least one call.
    pub by_day: Vec<AiUsageOf<NaiveDate>>,
    /// UTC months, by their first day.
    pub by_month: Vec<AiUsageOf<NaiveDate>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).expect(text).to_utc()
    }

    fn asked(from: Option<&str>, to: Option<&str>) -> Result<(String, String), AiRangeRefused> {
        let told = range(from.map(at), to.map(at), at("2026-12-15T10:20:30Z"))?;
        Ok((told.from.to_rfc3339(), told.to.to_rfc3339()))
    }

    #[test]
    fn a_question_without_a_range_is_of_this_month() {
        let said = |from: &str, to: &str| Ok((format!("{from}+00:00"), format!("{to}+00:00")));
        assert_eq!(asked(None, None), said("2026-12-01T00:00:00", "2027-01-01T00:00:00"));
        assert_eq!(asked(Some("2026-12-03T01:00:00Z"), None), said("2026-12-03T01:00:00", "2026-12-15T10:20:30"));
        assert_eq!(asked(None, Some("2026-03-01T00:00:00Z")), said("2026-02-01T00:00:00", "2026-03-01T00:00:00"));
        assert_eq!(asked(None, Some("2026-03-01T00:00:01Z")), said("2026-03-01T00:00:00", "2026-03-01T00:00:01"));
    }

    #[test]
    fn a_range_has_a_beginning_and_a_bound() {
        let from = Some("2026-01-01T00:00:00Z");
        assert!(asked(from, Some("2027-02-05T00:00:00Z")).is_ok());
        assert_eq!(asked(from, Some("2027-02-05T00:00:01Z")), Err(AiRangeRefused::TooLong));
        assert_eq!(asked(from, from), Err(AiRangeRefused::Reversed));
        assert_eq!(asked(Some("2026-12-15T10:20:30Z"), None), Err(AiRangeRefused::Reversed));
    }
}
