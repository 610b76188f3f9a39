//! The usage reported by any provider: merged as it arrives, then converted to our parts.

use serde::Serialize;

use super::claude::ClaudeUsage;
use super::gemini::GeminiUsage;
use super::openai::OpenAiUsage;
use super::told::Notes;
use super::usage::CallUsage;

/// The usage of one call in the provider's own form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportedUsage {
    /// With the `service_tier` that is sent beside the usage.
    OpenAi(OpenAiUsage, Option<String>),
    Claude(ClaudeUsage),
    Gemini(GeminiUsage),
}

/// A report in our parts. Each number is read by itself: a field or a sum that is not understood affects no other, and
/// where two readings differ the larger one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageReading {
    /// What was reported; zero for what was not.
    pub usage: CallUsage,
    /// Whether it reports the input, and whether it reports the output; 0 is reported too.
    pub tells_input: bool,
    pub tells_output: bool,
    /// Input and output together, if reported.
    pub total: Option<u64>,
    /// The fields that were not usable as sent, for the log.
    pub odd_fields: Vec<&'static str>,
}

impl UsageReading {
    /// If a reported total exceeds the parts, the rest counts as output: it is the dearer of both.
    pub(super) fn of(
        usage: CallUsage,
        tells_input: bool,
        tells_output: bool,
        total: Option<u64>,
        total_field: &'static str,
        mut notes: Notes,
    ) -> Self {
        let mut reading = Self { usage, tells_input, tells_output, total, odd_fields: Vec::new() };
        if tells_input && tells_output {
            if total.is_some_and(|total| total != reading.usage.tokens.total()) {
                notes.add(total_field);
            }
            reading.usage = reading.usage.clone().up_to(total);
        }
        Self { odd_fields: notes.0, ..reading }
    }
}

impl ReportedUsage {
    /// Merges another report of the same call. All numbers are cumulative, so the larger one is kept.
    #[must_use]
    pub fn followed_by(self, later: Self) -> Self {
        match (self, later) {
            (Self::Claude(earlier), Self::Claude(later)) => Self::Claude(earlier.followed_by(later)),
            (Self::Gemini(earlier), Self::Gemini(later)) => Self::Gemini(earlier.followed_by(later)),
            (Self::OpenAi(earlier, tier), Self::OpenAi(later, later_tier)) => {
                Self::OpenAi(earlier.followed_by(later), later_tier.or(tier))
            }
            (_, later) => later,
        }
    }

    /// In our parts.
    pub fn read(&self) -> UsageReading {
        match self {
            Self::OpenAi(usage, tier) => usage.read(tier.as_deref()),
            Self::Claude(usage) => usage.read(),
            Self::Gemini(usage) => usage.read(),
        }
    }
}

/// The larger of two numbers, or the one that is reported.
pub(super) fn largest(earlier: Option<i64>, later: Option<i64>) -> Option<i64> {
    earlier.max(later)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn of_cumulative_reports_the_larger_number_holds() {
        let gemini = |prompt| GeminiUsage { prompt_token_count: Some(prompt), ..GeminiUsage::default() };
        let merged = ReportedUsage::Gemini(gemini(5)).followed_by(ReportedUsage::Gemini(gemini(7)));
        assert_eq!(merged.read().usage.tokens.uncached_input, 7);
        let openai = |prompt| OpenAiUsage { prompt_tokens: Some(prompt), ..OpenAiUsage::default() };
        let first = ReportedUsage::OpenAi(openai(2), None);
        let merged = first.followed_by(ReportedUsage::OpenAi(openai(0), Some("flex".into()))).read().usage;
        assert_eq!((merged.tokens.uncached_input, merged.tier.as_str()), (2, "flex"));
    }

    fn any_number() -> impl Strategy<Value = Value> {
        prop_oneof![
            (0_u64..100_000).prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            (0_u64..9_999).prop_map(|number| Value::from(number.to_string())),
            prop_oneof![Just(Value::Null), Just(json!({})), Just(json!([1])), Just(json!("many")), Just(json!(true))],
        ]
    }

    /// A number as it is written.
    fn plain(value: &Value) -> u64 {
        value.as_u64().unwrap_or_default().min(crate::ai::TOKENS_MAX)
    }

    proptest! {
        #[test]
        fn no_report_is_read_as_less_than_its_plain_numbers(
            numbers in prop::collection::vec(any_number(), 8), word in prop::option::of(".{0,9}"),
        ) {
            let n = |place: usize| numbers[place].clone();
            let openai = json!({ "prompt_tokens": n(0), "completion_tokens": n(1), "total_tokens": n(2),
                "prompt_tokens_details": { "cached_tokens": n(3), "cache_write_tokens": n(4), "audio_tokens": n(5),
                "image_tokens": n(7) }, "completion_tokens_details": { "reasoning_tokens": n(6) } });
            let claude = json!({ "input_tokens": n(0), "output_tokens": n(1), "cache_read_input_tokens": n(3),
                "cache_creation_input_tokens": n(4), "cache_creation": { "ephemeral_1h_input_tokens": n(5) },
                "iterations": [{ "input_tokens": n(2), "output_tokens": n(6) }, n(7)],
                "service_tier": word, "speed": word, "inference_geo": word });
            let gemini = json!({ "promptTokenCount": n(0), "candidatesTokenCount": n(1), "totalTokenCount": n(2),
                "cachedContentTokenCount": n(3), "toolUsePromptTokenCount": n(4), "thoughtsTokenCount": n(6),
                "promptTokensDetails": [{ "modality": "AUDIO", "tokenCount": n(5) }], "trafficType": word });
            let (input, output) = (plain(&numbers[0]), plain(&numbers[1]));
            let total = plain(&numbers[2]);
            let openai = ReportedUsage::OpenAi(serde_json::from_value(openai).unwrap(), word);
            let claude = ReportedUsage::Claude(serde_json::from_value(claude).unwrap());
            let gemini = ReportedUsage::Gemini(serde_json::from_value(gemini).unwrap());
            for (report, has_total) in [(openai, true), (claude, false), (gemini, true)] {
                let read = report.read();
                let tokens = read.usage.tokens;
                prop_assert!(tokens.input() >= input, "{:?}", report);
                prop_assert!(tokens.output() >= output, "{:?}", report);
                prop_assert!(!has_total || !read.tells_input || !read.tells_output || tokens.total() >= total, "{:?}", report);
            }
        }
    }
}
