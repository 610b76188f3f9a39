//! `OpenAI`'s usage, of chat completions and of responses alike. The prompt contains what was cached and what was written
//! to a cache, the completion contains the reasoning: our parts are what is left of them.

use serde::{Deserialize, Serialize};

use super::reports::{UsageRefused, count, hold_to_total, rest};
use super::usage::{CallUsage, Geo, Tier, TokenUsage, ToolCalls, UsageSource};

/// `usage` as it is sent. Fields that are absent or null count nothing, and fields that we do not know are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct OpenAiUsage {
    #[serde(alias = "input_tokens")]
    pub prompt_tokens: Option<i64>,
    #[serde(alias = "output_tokens")]
    pub completion_tokens: Option<i64>,
    pub total_tokens: Option<i64>,
    #[serde(alias = "input_tokens_details")]
    pub prompt_tokens_details: Option<PromptDetails>,
    #[serde(alias = "output_tokens_details")]
    pub completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct PromptDetails {
    pub cached_tokens: Option<i64>,
    pub cache_write_tokens: Option<i64>,
    pub cache_write_tokens_details: Option<CacheWriteDetails>,
    pub audio_tokens: Option<i64>,
    pub image_tokens: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct CacheWriteDetails {
    pub ttl_30m_tokens: Option<i64>,
    pub ttl_12h_tokens: Option<i64>,
}

/// Accepted and rejected predictions are in the completion and cost what the rest of it costs, so nobody asks for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
#[expect(clippy::struct_field_names, reason = "the names are the provider's")]
pub struct CompletionDetails {
    pub reasoning_tokens: Option<i64>,
    pub audio_tokens: Option<i64>,
    pub image_tokens: Option<i64>,
}

impl OpenAiUsage {
    /// In our parts, at the tier that the answer names beside its usage.
    pub fn normalised(&self, service_tier: Option<&str>) -> Result<CallUsage, UsageRefused> {
        let no_prompt_details = PromptDetails::default();
        let of_prompt = self.prompt_tokens_details.as_ref().unwrap_or(&no_prompt_details);
        let no_completion_details = CompletionDetails::default();
        let of_completion = self.completion_tokens_details.as_ref().unwrap_or(&no_completion_details);
        let prompt = count("prompt_tokens", self.prompt_tokens)?;
        let completion = count("completion_tokens", self.completion_tokens)?;
        let cached = count("cached_tokens", of_prompt.cached_tokens)?;
        let (cache_write_short, cache_write_long) = cache_writes(of_prompt)?;
        let audio_input = count("audio_tokens", of_prompt.audio_tokens)?;
        let image_input = count("image_tokens", of_prompt.image_tokens)?;
        let reasoning_output = count("reasoning_tokens", of_completion.reasoning_tokens)?;
        let audio_output = count("audio_tokens", of_completion.audio_tokens)?;
        let image_output = count("image_tokens", of_completion.image_tokens)?;
        // Sound and pictures may have come from the cache, and then they stand in both numbers. Which did is not told:
        // they are billed as sound and pictures, and the cache gives way, so that nothing is billed twice.
        let others = [cache_write_short, cache_write_long, audio_input, image_input];
        let beside_the_cache = rest("prompt_tokens", prompt, &others)?;
        rest("prompt_tokens", prompt, &[cached, cache_write_short, cache_write_long])?;
        let cache_read = cached.min(beside_the_cache);
        let tokens = TokenUsage {
            uncached_input: beside_the_cache - cache_read,
            cache_read,
            cache_write_short,
            cache_write_long,
            audio_input,
            image_input,
            visible_output: rest("completion_tokens", completion, &[reasoning_output, audio_output, image_output])?,
            reasoning_output,
            audio_output,
            image_output,
            tool_calls: ToolCalls::default(),
        };
        let usage = CallUsage { tokens, tier: tier(service_tier)?, geo: Geo::ANYWHERE, source: UsageSource::Provider };
        hold_to_total(usage, "total_tokens", self.total_tokens)
    }
}

/// What was written to a cache, for minutes and for hours. Where the answer tells only the sum, it was the default.
fn cache_writes(details: &PromptDetails) -> Result<(u64, u64), UsageRefused> {
    let told = |details: &CacheWriteDetails| {
        Ok((count("ttl_30m_tokens", details.ttl_30m_tokens)?, count("ttl_12h_tokens", details.ttl_12h_tokens)?))
    };
    let (short, long) = details.cache_write_tokens_details.as_ref().map_or(Ok((0, 0)), told)?;
    if details.cache_write_tokens.is_none() {
        return Ok((short, long));
    }
    let written = count("cache_write_tokens", details.cache_write_tokens)?;
    let unsaid = rest("cache_write_tokens", written, &[short, long])?;
    Ok((short + unsaid, long))
}

/// Capacity that was bought beforehand (`scale`) has no price a token; it counts as standard.
fn tier(service_tier: Option<&str>) -> Result<Tier, UsageRefused> {
    match service_tier {
        None | Some("auto" | "default" | "standard" | "scale") => Ok(Tier::Standard),
        Some(other) => other.parse().map_err(|_| UsageRefused::UnknownWord { field: "service_tier" }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(usage: serde_json::Value) -> Result<TokenUsage, UsageRefused> {
        let usage: OpenAiUsage = serde_json::from_value(usage).unwrap();
        usage.normalised(None).map(|usage| usage.tokens)
    }

    #[test]
    fn a_chat_completion_is_divided_into_its_parts() {
        let usage = of(json!({
            "prompt_tokens": 1000, "completion_tokens": 300, "total_tokens": 1300, "unheard_of": { "n": 1 },
            "prompt_tokens_details": { "cached_tokens": 600, "cache_write_tokens": 100, "audio_tokens": 30,
                "image_tokens": 20, "text_tokens": 950 },
            "completion_tokens_details": { "reasoning_tokens": 200, "audio_tokens": 10,
                "accepted_prediction_tokens": 5, "rejected_prediction_tokens": 7 }
        }))
        .unwrap();
        let expected = TokenUsage {
            uncached_input: 250,
            cache_read: 600,
            cache_write_short: 100,
            audio_input: 30,
            image_input: 20,
            visible_output: 90,
            reasoning_output: 200,
            audio_output: 10,
            ..TokenUsage::default()
        };
        assert_eq!(usage, expected);
        assert_eq!((usage.input(), usage.output(), usage.total()), (1000, 300, 1300));
    }

    #[test]
    fn a_response_says_the_same_in_other_words() {
        let usage = of(json!({
            "input_tokens": 500, "output_tokens": 50, "total_tokens": 550,
            "input_tokens_details": { "cached_tokens": 100, "cache_write_tokens": 300,
                "cache_write_tokens_details": { "ttl_30m_tokens": 90, "ttl_12h_tokens": 200 } },
            "output_tokens_details": { "reasoning_tokens": 40 }
        }))
        .unwrap();
        assert_eq!((usage.uncached_input, usage.cache_read), (100, 100));
        assert_eq!((usage.cache_write_short, usage.cache_write_long), (100, 200), "what is not said was the default");
        assert_eq!((usage.visible_output, usage.reasoning_output), (10, 40));
    }

    #[test]
    fn silence_and_null_count_nothing() {
        assert_eq!(of(json!({})), Ok(TokenUsage::default()));
        let usage = of(json!({ "prompt_tokens": 8, "total_tokens": 8, "completion_tokens": null,
            "prompt_tokens_details": null, "completion_tokens_details": { "reasoning_tokens": null } }));
        assert_eq!(usage, Ok(TokenUsage { uncached_input: 8, ..TokenUsage::default() }));
    }

    #[test]
    fn cached_sound_is_billed_once() {
        let usage = of(json!({ "prompt_tokens": 100,
            "prompt_tokens_details": { "cached_tokens": 90, "audio_tokens": 40 } }))
        .unwrap();
        assert_eq!((usage.audio_input, usage.cache_read, usage.uncached_input, usage.input()), (40, 60, 0, 100));
    }

    #[test]
    fn a_report_that_contradicts_itself_is_refused() {
        let exceeds = |parts, total| UsageRefused::PartsExceed { whole: "prompt_tokens", parts, total };
        for (usage, why) in [
            (json!({ "prompt_tokens": -1 }), UsageRefused::NotACount { field: "prompt_tokens", count: -1 }),
            (
                json!({ "completion_tokens": 9_000_000_000_i64 }),
                UsageRefused::NotACount { field: "completion_tokens", count: 9_000_000_000 },
            ),
            (json!({ "prompt_tokens": 5, "prompt_tokens_details": { "cached_tokens": 6 } }), exceeds(6, 5)),
            (json!({ "prompt_tokens": 5, "prompt_tokens_details": { "audio_tokens": 6 } }), exceeds(6, 5)),
            (
                json!({ "completion_tokens": 5, "completion_tokens_details": { "reasoning_tokens": 6 } }),
                UsageRefused::PartsExceed { whole: "completion_tokens", parts: 6, total: 5 },
            ),
            (
                json!({ "prompt_tokens": 9, "prompt_tokens_details": { "cache_write_tokens": 5,
                    "cache_write_tokens_details": { "ttl_30m_tokens": 3, "ttl_12h_tokens": 3 } } }),
                UsageRefused::PartsExceed { whole: "cache_write_tokens", parts: 6, total: 5 },
            ),
            (
                json!({ "prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 12 }),
                UsageRefused::TotalDiffers { parts: 11, total: 12 },
            ),
        ] {
            assert_eq!(of(usage.clone()), Err(why), "{usage}");
        }
        assert!(serde_json::from_value::<OpenAiUsage>(json!({ "prompt_tokens": "5" })).is_err());
        assert!(serde_json::from_value::<OpenAiUsage>(json!({ "prompt_tokens": 1e30 })).is_err());
    }

    #[test]
    fn the_tier_is_the_one_that_was_used() {
        let tier = |name| OpenAiUsage::default().normalised(name).map(|usage| usage.tier);
        for name in [None, Some("auto"), Some("default"), Some("scale")] {
            assert_eq!(tier(name), Ok(Tier::Standard));
        }
        for (name, expected) in [("flex", Tier::Flex), ("priority", Tier::Priority), ("batch", Tier::Batch)] {
            assert_eq!(tier(Some(name)), Ok(expected));
        }
        assert_eq!(tier(Some("turbo")), Err(UsageRefused::UnknownWord { field: "service_tier" }));
    }
}
