//! Gemini's usage. The prompt includes cached tokens; what a tool read for the prompt is reported separately and is
//! input too; the output is candidates and thoughts. Audio and images are listed by modality.

use serde::{Deserialize, Serialize};

use super::reports::{UsageReading, largest};
use super::told::{Notes, Told};
use super::usage::{CallUsage, Geo, Tier, TokenUsage, UsageSource};

/// `usageMetadata` as it is sent. Fields that are absent or null count as not reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "Told", rename_all = "camelCase")]
pub struct GeminiUsage {
    pub prompt_token_count: Option<i64>,
    pub cached_content_token_count: Option<i64>,
    pub candidates_token_count: Option<i64>,
    pub thoughts_token_count: Option<i64>,
    pub tool_use_prompt_token_count: Option<i64>,
    pub total_token_count: Option<i64>,
    pub prompt_tokens_details: Option<Vec<ModalityCount>>,
    pub cache_tokens_details: Option<Vec<ModalityCount>>,
    pub candidates_tokens_details: Option<Vec<ModalityCount>>,
    pub tool_use_prompt_tokens_details: Option<Vec<ModalityCount>>,
    pub traffic_type: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModalityCount {
    pub modality: Option<String>,
    pub token_count: Option<i64>,
}

impl From<Told> for GeminiUsage {
    fn from(told: Told) -> Self {
        let details = |name: &str| {
            let item = |item: &Told| ModalityCount {
                modality: item.word("modality"),
                token_count: item.number(&["tokenCount"]),
            };
            told.list(name).map(|items| items.iter().map(item).collect())
        };
        Self {
            prompt_token_count: told.number(&["promptTokenCount"]),
            cached_content_token_count: told.number(&["cachedContentTokenCount"]),
            candidates_token_count: told.number(&["candidatesTokenCount"]),
            thoughts_token_count: told.number(&["thoughtsTokenCount"]),
            tool_use_prompt_token_count: told.number(&["toolUsePromptTokenCount"]),
            total_token_count: told.number(&["totalTokenCount"]),
            prompt_tokens_details: details("promptTokensDetails"),
            cache_tokens_details: details("cacheTokensDetails"),
            candidates_tokens_details: details("candidatesTokensDetails"),
            tool_use_prompt_tokens_details: details("toolUsePromptTokensDetails"),
            traffic_type: told.word("trafficType"),
        }
    }
}

/// Tokens that are not text.
#[derive(Clone, Copy, Default)]
struct Media {
    audio: u64,
    image: u64,
}

impl GeminiUsage {
    /// Merges a later chunk of the same answer. Numbers are cumulative, so none gets smaller.
    #[must_use]
    pub fn followed_by(self, later: Self) -> Self {
        Self {
            prompt_token_count: largest(self.prompt_token_count, later.prompt_token_count),
            cached_content_token_count: largest(self.cached_content_token_count, later.cached_content_token_count),
            candidates_token_count: largest(self.candidates_token_count, later.candidates_token_count),
            thoughts_token_count: largest(self.thoughts_token_count, later.thoughts_token_count),
            tool_use_prompt_token_count: largest(self.tool_use_prompt_token_count, later.tool_use_prompt_token_count),
            total_token_count: largest(self.total_token_count, later.total_token_count),
            prompt_tokens_details: later.prompt_tokens_details.or(self.prompt_tokens_details),
            cache_tokens_details: later.cache_tokens_details.or(self.cache_tokens_details),
            candidates_tokens_details: later.candidates_tokens_details.or(self.candidates_tokens_details),
            tool_use_prompt_tokens_details: later
                .tool_use_prompt_tokens_details
                .or(self.tool_use_prompt_tokens_details),
            traffic_type: later.traffic_type.or(self.traffic_type),
        }
    }

    pub fn read(&self) -> UsageReading {
        let mut notes = Notes::default();
        let prompt = notes.count("promptTokenCount", self.prompt_token_count);
        let candidates = notes.count("candidatesTokenCount", self.candidates_token_count);
        let thoughts = notes.count("thoughtsTokenCount", self.thoughts_token_count);
        let total = notes.count("totalTokenCount", self.total_token_count);
        let cache_read = notes.part("cachedContentTokenCount", self.cached_content_token_count);
        let tool_use = notes.part("toolUsePromptTokenCount", self.tool_use_prompt_token_count);
        let in_prompt = media("promptTokensDetails", self.prompt_tokens_details.as_deref(), &mut notes);
        let in_cache = media("cacheTokensDetails", self.cache_tokens_details.as_deref(), &mut notes);
        let in_tools = media("toolUsePromptTokensDetails", self.tool_use_prompt_tokens_details.as_deref(), &mut notes);
        let out = media("candidatesTokensDetails", self.candidates_tokens_details.as_deref(), &mut notes);
        // Cached tokens are billed as such, whatever their modality.
        let fresh = notes.rest("promptTokenCount", prompt.unwrap_or_default(), &[cache_read]);
        let (audio, image) = fresh_media(in_prompt, in_cache, fresh);
        let tool_text = notes.rest("toolUsePromptTokenCount", tool_use, &[in_tools.audio, in_tools.image]);
        let said = candidates.unwrap_or_default();
        let tokens = TokenUsage {
            uncached_input: (fresh - audio - image).saturating_add(tool_text),
            cache_read,
            audio_input: audio.saturating_add(in_tools.audio),
            image_input: image.saturating_add(in_tools.image),
            visible_output: notes.rest("candidatesTokenCount", said, &[out.audio, out.image]),
            reasoning_output: thoughts.unwrap_or_default(),
            audio_output: out.audio,
            image_output: out.image,
            ..TokenUsage::default()
        };
        let tier = self.tier(&mut notes);
        let usage = CallUsage { tokens, tier, geo: Geo::ANYWHERE, source: UsageSource::Provider };
        // Gemini omits zero counts; a total shows that the output was reported.
        let tells_output = candidates.is_some() || thoughts.is_some() || (prompt.is_some() && total.is_some());
        let tells_input = prompt.is_some() || tokens.input() > 0;
        UsageReading::of(usage, tells_input, tells_output, total, "totalTokenCount", notes)
    }

    /// Provisioned throughput has no price per token; it counts as standard, and so does an unknown value.
    fn tier(&self, notes: &mut Notes) -> Tier {
        match self.traffic_type.as_deref() {
            None | Some("TRAFFIC_TYPE_UNSPECIFIED" | "ON_DEMAND" | "PROVISIONED_THROUGHPUT") => Tier::Standard,
            Some("ON_DEMAND_PRIORITY") => Tier::Priority,
            Some("ON_DEMAND_FLEX") => Tier::Flex,
            Some(_) => {
                notes.add("trafficType");
                Tier::Standard
            }
        }
    }
}

/// Audio and images of the prompt that did not come from the cache. If the cache reports no modalities, its tokens are
/// taken as text first, so that the dearer parts are billed.
fn fresh_media(prompt: Media, cache: Media, fresh: u64) -> (u64, u64) {
    let audio = prompt.audio.saturating_sub(cache.audio).min(fresh);
    (audio, prompt.image.saturating_sub(cache.image).min(fresh - audio))
}

/// Documents and unknown modalities count as text; a video counts as images.
fn media(field: &'static str, details: Option<&[ModalityCount]>, notes: &mut Notes) -> Media {
    let mut media = Media::default();
    for detail in details.unwrap_or_default() {
        let tokens = notes.part(field, detail.token_count);
        match detail.modality.as_deref() {
            Some("AUDIO") => media.audio = media.audio.saturating_add(tokens),
            Some("IMAGE" | "VIDEO") => media.image = media.image.saturating_add(tokens),
            None | Some("MODALITY_UNSPECIFIED" | "TEXT" | "DOCUMENT") => {}
            Some(_) => notes.add(field),
        }
    }
    media
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(usage: serde_json::Value) -> CallUsage {
        serde_json::from_value::<GeminiUsage>(usage).unwrap().read().usage
    }

    #[test]
    fn the_parts_come_to_the_providers_total() {
        let usage = of(json!({
            "promptTokenCount": 1000, "cachedContentTokenCount": 400, "candidatesTokenCount": 70,
            "thoughtsTokenCount": 30, "toolUsePromptTokenCount": 50, "totalTokenCount": 1150, "unheardOf": 1
        }));
        let expected = TokenUsage {
            uncached_input: 650,
            cache_read: 400,
            visible_output: 70,
            reasoning_output: 30,
            ..TokenUsage::default()
        };
        assert_eq!((usage.tokens, usage.tier), (expected, Tier::Standard));
        assert_eq!((usage.tokens.input(), usage.tokens.total()), (1050, 1150));
    }

    #[test]
    fn sound_and_pictures_are_told_apart_and_the_cached_ones_left_to_the_cache() {
        let usage = of(json!({
            "promptTokenCount": 1000, "cachedContentTokenCount": 300, "candidatesTokenCount": 90,
            "toolUsePromptTokenCount": 20, "totalTokenCount": 1110,
            "promptTokensDetails": [{ "modality": "TEXT", "tokenCount": 500 }, { "modality": "AUDIO", "tokenCount": 300 },
                { "modality": "IMAGE", "tokenCount": 150 }, { "modality": "VIDEO", "tokenCount": 50 }],
            "cacheTokensDetails": [{ "modality": "AUDIO", "tokenCount": 100 }, { "modality": "TEXT", "tokenCount": 200 }],
            "candidatesTokensDetails": [{ "modality": "IMAGE", "tokenCount": 40 }, { "modality": "AUDIO", "tokenCount": 9 }],
            "toolUsePromptTokensDetails": [{ "modality": "IMAGE", "tokenCount": 5 }]
        }))
        .tokens;
        assert_eq!((usage.cache_read, usage.audio_input, usage.image_input), (300, 200, 205));
        assert_eq!((usage.uncached_input, usage.input()), (315, 1020));
        assert_eq!((usage.visible_output, usage.image_output, usage.audio_output), (41, 40, 9));
    }

    #[test]
    fn silence_counts_nothing_and_a_first_chunk_is_enough() {
        assert_eq!(of(json!({})).tokens, TokenUsage::default());
        let usage = of(json!({ "promptTokenCount": 4, "totalTokenCount": 4, "candidatesTokenCount": null }));
        assert_eq!(usage.tokens, TokenUsage { uncached_input: 4, ..TokenUsage::default() });
    }

    #[test]
    fn a_cache_that_does_not_say_what_it_held_held_text() {
        let usage = of(json!({ "promptTokenCount": 100, "cachedContentTokenCount": 80,
            "promptTokensDetails": [{ "modality": "AUDIO", "tokenCount": 60 }] }))
        .tokens;
        assert_eq!((usage.cache_read, usage.audio_input, usage.uncached_input), (80, 20, 0));
    }

    #[test]
    fn the_traffic_type_tells_the_tier() {
        let tier = |name| of(json!({ "trafficType": name })).tier;
        assert_eq!(tier("ON_DEMAND"), Tier::Standard);
        assert_eq!(tier("PROVISIONED_THROUGHPUT"), Tier::Standard);
        assert_eq!(tier("ON_DEMAND_PRIORITY"), Tier::Priority);
        assert_eq!(tier("ON_DEMAND_FLEX"), Tier::Flex);
        assert_eq!(tier("EXPRESS"), Tier::Standard);
    }

    #[test]
    fn of_two_readings_the_larger_counts() {
        for (usage, input, output, odd) in [
            (json!({ "promptTokenCount": 3, "thoughtsTokenCount": -1 }), 3, 0, "thoughtsTokenCount"),
            (json!({ "promptTokenCount": 3, "cachedContentTokenCount": 4 }), 7, 0, "promptTokenCount"),
            (
                json!({ "promptTokenCount": 3, "candidatesTokenCount": 3,
                    "candidatesTokensDetails": [{ "modality": "AUDIO", "tokenCount": 4 }] }),
                3,
                7,
                "candidatesTokenCount",
            ),
            (
                json!({ "promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 8 }),
                3,
                5,
                "totalTokenCount",
            ),
            (
                json!({ "promptTokenCount": 3, "promptTokensDetails": [{ "modality": "SMELL", "tokenCount": 1 }] }),
                3,
                0,
                "promptTokensDetails",
            ),
        ] {
            let read = serde_json::from_value::<GeminiUsage>(usage.clone()).unwrap().read();
            assert_eq!((read.usage.tokens.input(), read.usage.tokens.output()), (input, output), "{usage}");
            assert_eq!(read.odd_fields, [odd], "{usage}");
        }
    }
}
