//! Gemini's usage. The prompt contains what was cached; what a tool read for the prompt stands beside it and is input
//! too; the output is candidates and thoughts. Sound and pictures are told in lists by modality.

use serde::{Deserialize, Serialize};

use super::reports::{UsageRefused, count, hold_to_total, rest};
use super::usage::{CallUsage, Geo, Tier, TokenUsage, ToolCalls, UsageSource};

/// `usageMetadata` as it is sent. Fields that are absent or null count nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
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

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ModalityCount {
    pub modality: Option<String>,
    pub token_count: Option<i64>,
}

/// Tokens that are no text.
#[derive(Clone, Copy, Default)]
struct Media {
    audio: u64,
    image: u64,
}

impl GeminiUsage {
    pub fn normalised(&self) -> Result<CallUsage, UsageRefused> {
        let prompt = count("promptTokenCount", self.prompt_token_count)?;
        let cache_read = count("cachedContentTokenCount", self.cached_content_token_count)?;
        let candidates = count("candidatesTokenCount", self.candidates_token_count)?;
        let tool_use = count("toolUsePromptTokenCount", self.tool_use_prompt_token_count)?;
        let in_prompt = media("promptTokensDetails", self.prompt_tokens_details.as_deref())?;
        let in_cache = media("cacheTokensDetails", self.cache_tokens_details.as_deref())?;
        let in_tools = media("toolUsePromptTokensDetails", self.tool_use_prompt_tokens_details.as_deref())?;
        let out = media("candidatesTokensDetails", self.candidates_tokens_details.as_deref())?;
        // What was read from the cache is billed as such, whatever it was.
        let fresh = rest("promptTokenCount", prompt, &[cache_read])?;
        let (audio, image) = fresh_media(in_prompt, in_cache, fresh)?;
        let tool_text = rest("toolUsePromptTokenCount", tool_use, &[in_tools.audio, in_tools.image])?;
        let tokens = TokenUsage {
            uncached_input: fresh - audio - image + tool_text,
            cache_read,
            audio_input: audio + in_tools.audio,
            image_input: image + in_tools.image,
            visible_output: rest("candidatesTokenCount", candidates, &[out.audio, out.image])?,
            reasoning_output: count("thoughtsTokenCount", self.thoughts_token_count)?,
            audio_output: out.audio,
            image_output: out.image,
            tool_calls: ToolCalls::default(),
            ..TokenUsage::default()
        };
        let usage = CallUsage { tokens, tier: self.tier()?, geo: Geo::ANYWHERE, source: UsageSource::Provider };
        hold_to_total(usage, "totalTokenCount", self.total_token_count)
    }

    /// Throughput that was bought beforehand has no price a token; it counts as standard.
    fn tier(&self) -> Result<Tier, UsageRefused> {
        match self.traffic_type.as_deref() {
            None | Some("TRAFFIC_TYPE_UNSPECIFIED" | "ON_DEMAND" | "PROVISIONED_THROUGHPUT") => Ok(Tier::Standard),
            Some("ON_DEMAND_PRIORITY") => Ok(Tier::Priority),
            Some("ON_DEMAND_FLEX") => Ok(Tier::Flex),
            Some(_) => Err(UsageRefused::UnknownWord { field: "trafficType" }),
        }
    }
}

/// Sound and pictures of the prompt that did not come from the cache. Where the cache does not tell what it held, it held
/// text first, so that the dearer parts are billed.
fn fresh_media(prompt: Media, cache: Media, fresh: u64) -> Result<(u64, u64), UsageRefused> {
    let audio = rest("promptTokensDetails", prompt.audio, &[cache.audio])?;
    let image = rest("promptTokensDetails", prompt.image, &[cache.image])?;
    let audio = audio.min(fresh);
    Ok((audio, image.min(fresh - audio)))
}

/// Documents count as text; a video counts as pictures.
fn media(field: &'static str, details: Option<&[ModalityCount]>) -> Result<Media, UsageRefused> {
    details.unwrap_or_default().iter().try_fold(Media::default(), |media, detail| {
        let tokens = count(field, detail.token_count)?;
        Ok(match detail.modality.as_deref() {
            Some("AUDIO") => Media { audio: media.audio.saturating_add(tokens), ..media },
            Some("IMAGE" | "VIDEO") => Media { image: media.image.saturating_add(tokens), ..media },
            None | Some("MODALITY_UNSPECIFIED" | "TEXT" | "DOCUMENT") => media,
            Some(_) => return Err(UsageRefused::UnknownWord { field }),
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(usage: serde_json::Value) -> Result<CallUsage, UsageRefused> {
        serde_json::from_value::<GeminiUsage>(usage).unwrap().normalised()
    }

    #[test]
    fn the_parts_come_to_the_providers_total() {
        let usage = of(json!({
            "promptTokenCount": 1000, "cachedContentTokenCount": 400, "candidatesTokenCount": 70,
            "thoughtsTokenCount": 30, "toolUsePromptTokenCount": 50, "totalTokenCount": 1150, "unheardOf": 1
        }))
        .unwrap();
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
        .unwrap()
        .tokens;
        assert_eq!((usage.cache_read, usage.audio_input, usage.image_input), (300, 200, 205));
        assert_eq!((usage.uncached_input, usage.input()), (315, 1020));
        assert_eq!((usage.visible_output, usage.image_output, usage.audio_output), (41, 40, 9));
    }

    #[test]
    fn silence_counts_nothing_and_a_first_chunk_is_enough() {
        assert_eq!(of(json!({})).unwrap().tokens, TokenUsage::default());
        let usage = of(json!({ "promptTokenCount": 4, "totalTokenCount": 4, "candidatesTokenCount": null })).unwrap();
        assert_eq!(usage.tokens, TokenUsage { uncached_input: 4, ..TokenUsage::default() });
    }

    #[test]
    fn a_cache_that_does_not_say_what_it_held_held_text() {
        let usage = of(json!({ "promptTokenCount": 100, "cachedContentTokenCount": 80,
            "promptTokensDetails": [{ "modality": "AUDIO", "tokenCount": 60 }] }))
        .unwrap()
        .tokens;
        assert_eq!((usage.cache_read, usage.audio_input, usage.uncached_input), (80, 20, 0));
    }

    #[test]
    fn the_traffic_type_tells_the_tier() {
        let tier = |name| of(json!({ "trafficType": name })).map(|usage| usage.tier);
        assert_eq!(tier("ON_DEMAND"), Ok(Tier::Standard));
        assert_eq!(tier("PROVISIONED_THROUGHPUT"), Ok(Tier::Standard));
        assert_eq!(tier("ON_DEMAND_PRIORITY"), Ok(Tier::Priority));
        assert_eq!(tier("ON_DEMAND_FLEX"), Ok(Tier::Flex));
        assert_eq!(tier("EXPRESS"), Err(UsageRefused::UnknownWord { field: "trafficType" }));
    }

    #[test]
    fn a_report_that_contradicts_itself_is_refused() {
        for (usage, why) in [
            (json!({ "thoughtsTokenCount": -1 }), UsageRefused::NotACount { field: "thoughtsTokenCount", count: -1 }),
            (
                json!({ "promptTokenCount": 3, "cachedContentTokenCount": 4 }),
                UsageRefused::PartsExceed { whole: "promptTokenCount", parts: 4, total: 3 },
            ),
            (
                json!({ "candidatesTokenCount": 3, "candidatesTokensDetails": [{ "modality": "AUDIO", "tokenCount": 4 }] }),
                UsageRefused::PartsExceed { whole: "candidatesTokenCount", parts: 4, total: 3 },
            ),
            (
                json!({ "promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 8 }),
                UsageRefused::TotalDiffers { parts: 7, total: 8 },
            ),
            (
                json!({ "promptTokensDetails": [{ "modality": "SMELL", "tokenCount": 1 }] }),
                UsageRefused::UnknownWord { field: "promptTokensDetails" },
            ),
        ] {
            assert_eq!(of(usage.clone()), Err(why), "{usage}");
        }
    }
}
