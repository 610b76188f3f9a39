//! AI usage: what calls of models used and cost, summed over a range of time.

use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use thiserror::Error;

use crate::ai::Provider;
use crate::prices::NanoUsd;
use crate::usage_history::Bucket;

/// The longest range of one question.
const DAYS_MAX: u64 = 400;

/// How many models are told apart in one answer; the others are one sum.
pub const MODELS_SHOWN: u64 = 100;

/// From, and up to but not including.
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

/// The range of a question. Told nothing, it is this calendar month of UTC; told only where it begins, it goes up to now;
/// told only where it ends, it begins with the month that it ends in.
pub fn range(
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<AiUsageRange, AiRangeRefused> {
    let month_of = |at| Bucket::Month.start_of(at);
    let (from, to) = match (from, to) {
        (None, None) => (month_of(now), Bucket::Month.end_of(month_of(now))),
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

/// What some calls came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AiTotals {
    pub requests: i64,
    /// Of the prompts, read from a cache or not.
    pub input_tokens: i64,
    pub output_tokens: i64,
    /// What of the prompts was read from a cache.
    pub cached_tokens: i64,
    /// What was charged as used.
    pub total_tokens: i64,
    pub cost: NanoUsd,
}

/// What the calls of one kind came to: of a provider, of a model, of a day, of a month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AiUsageOf<K> {
    pub of: K,
    pub totals: AiTotals,
}

/// A model as the record of its calls names it, which may be none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedModel {
    pub provider: Provider,
    pub model: Option<String>,
}

/// The same calls in all, and divided in four ways. What cost most comes first, and the latest day and month.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AiUsageSums {
    pub all: AiTotals,
    pub by_provider: Vec<AiUsageOf<Provider>>,
    /// At most [`MODELS_SHOWN`].
    pub by_model: Vec<AiUsageOf<RecordedModel>>,
    /// All further models together, where there are more.
    pub other_models: Option<AiTotals>,
    /// Days of UTC in which there was something.
    pub by_day: Vec<AiUsageOf<NaiveDate>>,
    /// Months of UTC, by their first day.
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
