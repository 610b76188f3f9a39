//! What a provider reported, whichever it was: merged as it comes in, then brought into our parts.

use serde::Serialize;
use thiserror::Error;

use super::claude::ClaudeUsage;
use super::gemini::GeminiUsage;
use super::openai::OpenAiUsage;
use super::usage::{CallUsage, TOKENS_MAX};

/// Why a report is not believed. Whoever bills then has the text to estimate from, and says so.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UsageRefused {
    #[error("`{field}` is {count}, which is no count")]
    NotACount { field: &'static str, count: i64 },
    #[error("the parts of `{whole}` come to {parts}, and it is {total}")]
    PartsExceed { whole: &'static str, parts: u64, total: u64 },
    #[error("the parts come to {parts} tokens, and the provider's total is {total}")]
    TotalDiffers { parts: u64, total: u64 },
    #[error("`{field}` says a word that is not known, so its price is not")]
    UnknownWord { field: &'static str },
}

/// The usage of one call in the provider's own form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportedUsage {
    /// With the `service_tier` that stands beside the usage.
    OpenAi(OpenAiUsage, Option<String>),
    Claude(ClaudeUsage),
    Gemini(GeminiUsage),
}

impl ReportedUsage {
    /// What is known after another report of the same call. Claude's reports lie over each other field by field; of the
    /// others the last one holds, since each is the whole.
    #[must_use]
    pub fn followed_by(self, later: Self) -> Self {
        match (self, later) {
            (Self::Claude(earlier), Self::Claude(later)) => Self::Claude(earlier.followed_by(later)),
            (_, later) => later,
        }
    }

    /// In our parts, if the report is whole in itself.
    pub fn normalised(&self) -> Result<CallUsage, UsageRefused> {
        match self {
            Self::OpenAi(usage, tier) => usage.normalised(tier.as_deref()),
            Self::Claude(usage) => usage.normalised(),
            Self::Gemini(usage) => usage.normalised(),
        }
    }
}

/// A count as a provider reports it; silence is none.
pub(super) fn count(field: &'static str, reported: Option<i64>) -> Result<u64, UsageRefused> {
    let reported = reported.unwrap_or_default();
    let refused = UsageRefused::NotACount { field, count: reported };
    u64::try_from(reported).ok().filter(|count| *count <= TOKENS_MAX).ok_or(refused)
}

/// What is left of a whole without these parts.
pub(super) fn rest(whole: &'static str, total: u64, parts: &[u64]) -> Result<u64, UsageRefused> {
    let parts = parts.iter().copied().fold(0, u64::saturating_add);
    total.checked_sub(parts).ok_or(UsageRefused::PartsExceed { whole, parts, total })
}

/// Holds our parts to the provider's own total, where it told one.
pub(super) fn hold_to_total(
    usage: CallUsage,
    field: &'static str,
    total: Option<i64>,
) -> Result<CallUsage, UsageRefused> {
    let parts = usage.tokens.total();
    match total {
        None => Ok(usage),
        Some(_) => match count(field, total)? {
            total if total == parts => Ok(usage),
            total => Err(UsageRefused::TotalDiffers { parts, total }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_whole_reports_the_last_one_holds() {
        let gemini = |prompt| GeminiUsage { prompt_token_count: Some(prompt), ..GeminiUsage::default() };
        let merged = ReportedUsage::Gemini(gemini(5)).followed_by(ReportedUsage::Gemini(gemini(7)));
        assert_eq!(merged.normalised().unwrap().tokens.uncached_input, 7);
        let openai = |prompt| OpenAiUsage { prompt_tokens: Some(prompt), ..OpenAiUsage::default() };
        let first = ReportedUsage::OpenAi(openai(1), None);
        let merged = first.followed_by(ReportedUsage::OpenAi(openai(2), Some("flex".into()))).normalised().unwrap();
        assert_eq!((merged.tokens.uncached_input, merged.tier.as_str()), (2, "flex"));
    }

    #[test]
    fn a_count_is_neither_negative_nor_absurd() {
        assert_eq!(count("n", None), Ok(0));
        assert_eq!(count("n", Some(1_000_000_000)), Ok(TOKENS_MAX));
        for bad in [-1, i64::MIN, 1_000_000_001, i64::MAX] {
            assert_eq!(count("n", Some(bad)), Err(UsageRefused::NotACount { field: "n", count: bad }));
        }
    }
}
