//! `OpenAI`'s usage, of chat completions and responses. The prompt includes cached tokens and cache writes, the
//! completion includes reasoning. Our parts are the remainders.

use serde::{Deserialize, Serialize};

use super::reports::{UsageReading, largest};
use super::told::{Notes, Told};
use super::usage::{CallUsage, Geo, Tier, TokenUsage, ToolCalls, UsageSource};

/// `usage` as it is sent. Fields that are absent or null count as not reported; unknown fields are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "Told")]
pub struct OpenAiUsage {
    pub prompt_tokens: Option<i64>,
    pub completion_tokens: Option<i64>,
    pub total_tokens: Option<i64>,
    pub prompt_tokens_details: Option<PromptDetails>,
    pub completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PromptDetails {
    pub cached_tokens: Option<i64>,
    pub cache_write_tokens: Option<i64>,
    pub cache_write_tokens_details: Option<CacheWriteDetails>,
    pub audio_tokens: Option<i64>,
    pub image_tokens: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CacheWriteDetails {
    pub ttl_30m_tokens: Option<i64>,
    pub ttl_12h_tokens: Option<i64>,
}

/// Accepted and rejected predictions are part of the completion at the same price, so they are not read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are the provider's")]
pub struct CompletionDetails {
    pub reasoning_tokens: Option<i64>,
    pub audio_tokens: Option<i64>,
    pub image_tokens: Option<i64>,
}

/// Chat completions and responses report the same under different names.
impl From<Told> for OpenAiUsage {
    fn from(told: Told) -> Self {
        let prompt = told.part(&["prompt_tokens_details", "input_tokens_details"]);
        let completion = told.part(&["completion_tokens_details", "output_tokens_details"]);
        let writes = |details: &Told| CacheWriteDetails {
            ttl_30m_tokens: details.number(&["ttl_30m_tokens"]),
            ttl_12h_tokens: details.number(&["ttl_12h_tokens"]),
        };
        Self {
            prompt_tokens: told.number(&["prompt_tokens", "input_tokens"]),
            completion_tokens: told.number(&["completion_tokens", "output_tokens"]),
            total_tokens: told.number(&["total_tokens"]),
            prompt_tokens_details: prompt.map(|details| PromptDetails {
                cached_tokens: details.number(&["cached_tokens"]),
                cache_write_tokens: details.number(&["cache_write_tokens"]),
                cache_write_tokens_details: details.part(&["cache_write_tokens_details"]).map(writes),
                audio_tokens: details.number(&["audio_tokens"]),
                image_tokens: details.number(&["image_tokens"]),
            }),
            completion_tokens_details: completion.map(|details| CompletionDetails {
                reasoning_tokens: details.number(&["reasoning_tokens"]),
                audio_tokens: details.number(&["audio_tokens"]),
                image_tokens: details.number(&["image_tokens"]),
            }),
        }
    }
}

impl OpenAiUsage {
    /// Merges a later report of the same call: each covers the whole call so far, so no number gets smaller.
    #[must_use]
    pub fn followed_by(self, later: Self) -> Self {
        Self {
            prompt_tokens: largest(self.prompt_tokens, later.prompt_tokens),
            completion_tokens: largest(self.completion_tokens, later.completion_tokens),
            total_tokens: largest(self.total_tokens, later.total_tokens),
            prompt_tokens_details: later.prompt_tokens_details.or(self.prompt_tokens_details),
            completion_tokens_details: later.completion_tokens_details.or(self.completion_tokens_details),
        }
    }

    /// In our parts, at the tier that the response has beside its usage.
    pub fn read(&self, service_tier: Option<&str>) -> UsageReading {
        let mut notes = Notes::default();
        let prompt = notes.count("prompt_tokens", self.prompt_tokens);
        let completion = notes.count("completion_tokens", self.completion_tokens);
        let total = notes.count("total_tokens", self.total_tokens);
        let without = |other: Option<u64>| total.zip(other).map(|(total, other)| total.saturating_sub(other));
        let (prompt, completion) = (prompt.or_else(|| without(completion)), completion.or_else(|| without(prompt)));
        let mut tokens = TokenUsage::default();
        self.read_prompt(prompt.unwrap_or_default(), &mut tokens, &mut notes);
        self.read_completion(completion.unwrap_or_default(), &mut tokens, &mut notes);
        let tier = tier(service_tier, &mut notes);
        let usage = CallUsage { tokens, tier, geo: Geo::ANYWHERE, source: UsageSource::Provider };
        UsageReading::of(usage, prompt.is_some(), completion.is_some(), total, "total_tokens", notes)
    }

    fn read_prompt(&self, prompt: u64, tokens: &mut TokenUsage, notes: &mut Notes) {
        let Some(details) = &self.prompt_tokens_details else {
            tokens.uncached_input = prompt;
            return;
        };
        let cached = notes.part("cached_tokens", details.cached_tokens);
        let writes = details.cache_write_tokens_details.as_ref();
        let short = notes.part("ttl_30m_tokens", writes.and_then(|writes| writes.ttl_30m_tokens));
        let long = notes.part("ttl_12h_tokens", writes.and_then(|writes| writes.ttl_12h_tokens));
        let (short, long) = notes.cache_writes("cache_write_tokens", details.cache_write_tokens, short, long);
        let audio = notes.part("audio_tokens", details.audio_tokens);
        let image = notes.part("image_tokens", details.image_tokens);
        let is_within = |parts: [u64; 4]| parts.into_iter().fold(0, u64::saturating_add) <= prompt;
        // Audio and images may come from the cache, and then both numbers include them. Which ones did is not reported:
        // they are billed as audio and images, and the cached count is reduced, so that nothing is billed twice.
        let cache_read = if is_within([cached, short, long, 0]) && is_within([short, long, audio, image]) {
            cached.min(prompt - short - long - audio - image)
        } else {
            cached
        };
        tokens.uncached_input = notes.rest("prompt_tokens", prompt, &[cache_read, short, long, audio, image]);
        (tokens.cache_read, tokens.cache_write_short, tokens.cache_write_long) = (cache_read, short, long);
        (tokens.audio_input, tokens.image_input) = (audio, image);
    }

    fn read_completion(&self, completion: u64, tokens: &mut TokenUsage, notes: &mut Notes) {
        let no_details = CompletionDetails::default();
        let details = self.completion_tokens_details.as_ref().unwrap_or(&no_details);
        let reasoning = notes.part("reasoning_tokens", details.reasoning_tokens);
        let audio = notes.part("audio_tokens", details.audio_tokens);
        let image = notes.part("image_tokens", details.image_tokens);
        tokens.visible_output = notes.rest("completion_tokens", completion, &[reasoning, audio, image]);
        (tokens.reasoning_output, tokens.audio_output, tokens.image_output) = (reasoning, audio, image);
        tokens.tool_calls = ToolCalls::default();
    }
}

/// Capacity bought in advance (`scale`) has no price per token; it counts as standard, and so does a value whose price
/// is not known.
fn tier(service_tier: Option<&str>, notes: &mut Notes) -> Tier {
    match service_tier {
        None | Some("auto" | "default" | "standard" | "scale") => Tier::Standard,
        // The former name of priority.
        Some("fast") => Tier::Priority,
        Some(other) => other.parse().unwrap_or_else(|_| {
            notes.add("service_tier");
            Tier::Standard
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(usage: serde_json::Value) -> TokenUsage {
        serde_json::from_value::<OpenAiUsage>(usage).unwrap().read(None).usage.tokens
    }

    #[test]
    fn a_chat_completion_is_divided_into_its_parts() {
        let usage = of(json!({
            "prompt_tokens": 1000, "completion_tokens": 300, "total_tokens": 1300, "unheard_of": { "n": 1 },
            "prompt_tokens_details": { "cached_tokens": 600, "cache_write_tokens": 100, "audio_tokens": 30,
                "image_tokens": 20, "text_tokens": 950 },
            "completion_tokens_details": { "reasoning_tokens": 200, "audio_tokens": 10,
                "accepted_prediction_tokens": 5, "rejected_prediction_tokens": 7 }
        }));
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
        }));
        assert_eq!((usage.uncached_input, usage.cache_read), (100, 100));
        assert_eq!((usage.cache_write_short, usage.cache_write_long), (100, 200), "what is not said was the default");
        assert_eq!((usage.visible_output, usage.reasoning_output), (10, 40));
    }

    #[test]
    fn silence_and_null_count_nothing() {
        assert_eq!(of(json!({})), TokenUsage::default());
        let usage = of(json!({ "prompt_tokens": 8, "total_tokens": 8, "completion_tokens": null,
            "prompt_tokens_details": null, "completion_tokens_details": { "reasoning_tokens": null } }));
        assert_eq!(usage, TokenUsage { uncached_input: 8, ..TokenUsage::default() });
    }

    #[test]
    fn cached_sound_is_billed_once() {
        let usage = of(json!({ "prompt_tokens": 100,
            "prompt_tokens_details": { "cached_tokens": 90, "audio_tokens": 40 } }));
        assert_eq!((usage.audio_input, usage.cache_read, usage.uncached_input, usage.input()), (40, 60, 0, 100));
    }

    #[test]
    fn of_two_readings_the_larger_counts() {
        let reasoning = |tokens| json!({ "reasoning_tokens": tokens });
        for (usage, input, output, odd) in [
            (json!({ "prompt_tokens": 5, "prompt_tokens_details": { "cached_tokens": 6 } }), 11, 0, "prompt_tokens"),
            (json!({ "prompt_tokens": 5, "prompt_tokens_details": { "audio_tokens": 6 } }), 11, 0, "prompt_tokens"),
            (json!({ "completion_tokens": 5, "completion_tokens_details": reasoning(6) }), 0, 11, "completion_tokens"),
            (
                json!({ "prompt_tokens": 9, "prompt_tokens_details": { "cache_write_tokens": 5,
                    "cache_write_tokens_details": { "ttl_30m_tokens": 3, "ttl_12h_tokens": 3 } } }),
                9,
                0,
                "cache_write_tokens",
            ),
            (json!({ "prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 12 }), 5, 7, "total_tokens"),
            (json!({ "prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 3 }), 5, 6, "total_tokens"),
            (json!({ "prompt_tokens": 9_000_000_000_u64, "completion_tokens": 6 }), 1_000_000_000, 6, "prompt_tokens"),
            (json!({ "prompt_tokens": 5, "completion_tokens": -6 }), 5, 0, "completion_tokens"),
        ] {
            let read = serde_json::from_value::<OpenAiUsage>(usage.clone()).unwrap().read(None);
            assert_eq!((read.usage.tokens.input(), read.usage.tokens.output()), (input, output), "{usage}");
            assert_eq!(read.odd_fields, [odd], "{usage}");
        }
    }

    #[test]
    fn reasoning_that_stands_beside_the_completion_is_told_by_the_total() {
        let usage = of(json!({ "prompt_tokens": 10, "completion_tokens": 50, "total_tokens": 90,
            "completion_tokens_details": { "reasoning_tokens": 30 } }));
        assert_eq!((usage.visible_output, usage.reasoning_output), (50, 30));
    }

    #[test]
    fn one_number_that_is_none_takes_no_other_with_it() {
        let read = |usage| serde_json::from_value::<OpenAiUsage>(usage).unwrap().read(Some("ultra"));
        let usage = read(json!({ "prompt_tokens": "3000", "completion_tokens": 1000.0, "total_tokens": {},
            "prompt_tokens_details": [], "completion_tokens_details": "none" }));
        assert_eq!((usage.usage.tokens.uncached_input, usage.usage.tokens.visible_output), (3_000, 1_000));
        assert_eq!((usage.usage.tier, usage.odd_fields), (Tier::Standard, vec!["service_tier"]));
        let half = read(json!({ "prompt_tokens": 7, "completion_tokens": [] }));
        assert_eq!((half.usage.tokens.input(), half.tells_input, half.tells_output), (7, true, false));
        let both = read(json!({ "prompt_tokens": 7, "input_tokens": 8, "output_tokens": 1 }));
        assert_eq!((both.usage.tokens.input(), both.tells_output), (8, true));
        let embedded = read(json!({ "prompt_tokens": 7, "total_tokens": 7 }));
        assert_eq!((embedded.usage.tokens.total(), embedded.tells_output), (7, true));
    }

    #[test]
    fn the_tier_is_the_one_that_was_used() {
        let tier = |name| OpenAiUsage::default().read(name).usage.tier;
        for name in [None, Some("auto"), Some("default"), Some("scale"), Some("turbo"), Some("")] {
            assert_eq!(tier(name), Tier::Standard);
        }
        for (name, expected) in
            [("flex", Tier::Flex), ("priority", Tier::Priority), ("fast", Tier::Priority), ("batch", Tier::Batch)]
        {
            assert_eq!(tier(Some(name)), expected);
        }
    }
}
