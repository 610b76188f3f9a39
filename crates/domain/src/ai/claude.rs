//! Claude's usage. The parts of the input overlap nowhere; the output contains the thinking and does not tell it apart.

use serde::{Deserialize, Serialize};

use super::reports::{UsageRefused, count, rest};
use super::usage::{CallUsage, Geo, Tier, TokenUsage, ToolCalls, UsageSource};

/// `usage` as it is sent, in a message or an event. Fields that are absent or null say nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct ClaudeUsage {
    pub input_tokens: Option<i64>,
    pub cache_creation_input_tokens: Option<i64>,
    pub cache_read_input_tokens: Option<i64>,
    pub cache_creation: Option<CacheCreation>,
    pub output_tokens: Option<i64>,
    pub server_tool_use: Option<ServerToolUse>,
    pub service_tier: Option<String>,
    pub speed: Option<String>,
    pub inference_geo: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct CacheCreation {
    pub ephemeral_5m_input_tokens: Option<i64>,
    pub ephemeral_1h_input_tokens: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
#[expect(clippy::struct_field_names, reason = "the names are the provider's")]
pub struct ServerToolUse {
    pub web_search_requests: Option<i64>,
    pub web_fetch_requests: Option<i64>,
    pub code_execution_requests: Option<i64>,
}

impl ClaudeUsage {
    /// After a later event of the same message: its numbers are cumulative, so what it says holds, and what it does not
    /// say stays.
    #[must_use]
    pub fn followed_by(self, later: Self) -> Self {
        Self {
            input_tokens: later.input_tokens.or(self.input_tokens),
            cache_creation_input_tokens: later.cache_creation_input_tokens.or(self.cache_creation_input_tokens),
            cache_read_input_tokens: later.cache_read_input_tokens.or(self.cache_read_input_tokens),
            cache_creation: later.cache_creation.or(self.cache_creation),
            output_tokens: later.output_tokens.or(self.output_tokens),
            server_tool_use: later.server_tool_use.or(self.server_tool_use),
            service_tier: later.service_tier.or(self.service_tier),
            speed: later.speed.or(self.speed),
            inference_geo: later.inference_geo.or(self.inference_geo),
        }
    }

    pub fn normalised(&self) -> Result<CallUsage, UsageRefused> {
        let (cache_write_short, cache_write_long) = self.cache_writes()?;
        let tokens = TokenUsage {
            uncached_input: count("input_tokens", self.input_tokens)?,
            cache_read: count("cache_read_input_tokens", self.cache_read_input_tokens)?,
            cache_write_short,
            cache_write_long,
            visible_output: count("output_tokens", self.output_tokens)?,
            tool_calls: self.tool_calls()?,
            ..TokenUsage::default()
        };
        Ok(CallUsage { tokens, tier: self.tier()?, geo: self.geo()?, source: UsageSource::Provider })
    }

    /// For five minutes and for an hour. Where the message tells only the sum, it was the five minutes that are usual.
    fn cache_writes(&self) -> Result<(u64, u64), UsageRefused> {
        let told = |creation: &CacheCreation| {
            Ok((
                count("ephemeral_5m_input_tokens", creation.ephemeral_5m_input_tokens)?,
                count("ephemeral_1h_input_tokens", creation.ephemeral_1h_input_tokens)?,
            ))
        };
        let (short, long) = self.cache_creation.as_ref().map_or(Ok((0, 0)), told)?;
        if self.cache_creation_input_tokens.is_none() {
            return Ok((short, long));
        }
        let written = count("cache_creation_input_tokens", self.cache_creation_input_tokens)?;
        let unsaid = rest("cache_creation_input_tokens", written, &[short, long])?;
        Ok((short + unsaid, long))
    }

    fn tool_calls(&self) -> Result<ToolCalls, UsageRefused> {
        let Some(tools) = &self.server_tool_use else { return Ok(ToolCalls::default()) };
        Ok(ToolCalls {
            web_search: count("web_search_requests", tools.web_search_requests)?,
            web_fetch: count("web_fetch_requests", tools.web_fetch_requests)?,
            code_execution: count("code_execution_requests", tools.code_execution_requests)?,
        })
    }

    /// Fast is a tier of its own, whatever the other word says.
    fn tier(&self) -> Result<Tier, UsageRefused> {
        match self.speed.as_deref() {
            None | Some("standard") => {}
            Some("fast") => return Ok(Tier::Fast),
            Some(_) => return Err(UsageRefused::UnknownWord { field: "speed" }),
        }
        let said = self.service_tier.as_deref().unwrap_or("standard");
        said.parse().map_err(|_| UsageRefused::UnknownWord { field: "service_tier" })
    }

    fn geo(&self) -> Result<Geo, UsageRefused> {
        match self.inference_geo.as_deref() {
            None | Some("global" | "not_available") => Ok(Geo::ANYWHERE),
            Some(said) => Geo::parse(said).map_err(|_| UsageRefused::UnknownWord { field: "inference_geo" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(usage: serde_json::Value) -> ClaudeUsage {
        serde_json::from_value(usage).unwrap()
    }

    #[test]
    fn a_message_is_taken_as_it_is() {
        let usage = read(json!({
            "input_tokens": 10, "cache_creation_input_tokens": 700, "cache_read_input_tokens": 2000, "output_tokens": 90,
            "cache_creation": { "ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 400 },
            "server_tool_use": { "web_search_requests": 2, "web_fetch_requests": 1 },
            "service_tier": "priority", "inference_geo": "us", "unheard_of": []
        }))
        .normalised()
        .unwrap();
        let expected = TokenUsage {
            uncached_input: 10,
            cache_read: 2000,
            cache_write_short: 300,
            cache_write_long: 400,
            visible_output: 90,
            tool_calls: ToolCalls { web_search: 2, web_fetch: 1, code_execution: 0 },
            ..TokenUsage::default()
        };
        assert_eq!(usage.tokens, expected);
        assert_eq!((usage.tier, usage.geo.as_str(), usage.tokens.input()), (Tier::Priority, "us", 2710));
    }

    #[test]
    fn later_events_overwrite_what_they_say() {
        let start = read(json!({ "input_tokens": 3, "cache_creation_input_tokens": 100, "cache_read_input_tokens": 50,
            "cache_creation": { "ephemeral_5m_input_tokens": 40, "ephemeral_1h_input_tokens": 60 },
            "output_tokens": 1, "service_tier": "standard", "inference_geo": "us" }));
        let delta = read(json!({ "output_tokens": 7 }));
        let merged = start.clone().followed_by(delta);
        assert_eq!(merged, ClaudeUsage { output_tokens: Some(7), ..start });
        let repeats = read(json!({ "input_tokens": 5, "cache_read_input_tokens": 0, "output_tokens": 9,
            "server_tool_use": { "web_search_requests": 1 } }));
        let tokens = merged.followed_by(repeats).normalised().unwrap().tokens;
        assert_eq!((tokens.uncached_input, tokens.cache_read, tokens.visible_output), (5, 0, 9));
        assert_eq!((tokens.cache_write_short, tokens.cache_write_long), (40, 60));
        assert_eq!(tokens.tool_calls.web_search, 1);
    }

    #[test]
    fn writes_that_are_not_told_apart_are_short() {
        let usage = read(json!({ "cache_creation_input_tokens": 100 })).normalised().unwrap().tokens;
        assert_eq!((usage.cache_write_short, usage.cache_write_long), (100, 0));
        let usage = read(json!({ "cache_creation": { "ephemeral_1h_input_tokens": 5 } })).normalised().unwrap().tokens;
        assert_eq!((usage.cache_write_short, usage.cache_write_long), (0, 5));
        let grown = read(json!({ "cache_creation_input_tokens": 9, "cache_creation": {
            "ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 5 } }));
        let usage = grown.normalised().unwrap().tokens;
        assert_eq!((usage.cache_write_short, usage.cache_write_long), (4, 5));
    }

    #[test]
    fn fast_goes_before_the_tier_and_silence_is_standard() {
        let of = |usage| read(usage).normalised().map(|usage| (usage.tier, usage.geo));
        assert_eq!(of(json!({})), Ok((Tier::Standard, Geo::ANYWHERE)));
        assert_eq!(
            of(json!({ "speed": "standard", "inference_geo": "not_available", "service_tier": "batch" })),
            Ok((Tier::Batch, Geo::ANYWHERE))
        );
        assert_eq!(of(json!({ "speed": "fast", "service_tier": "standard" })), Ok((Tier::Fast, Geo::ANYWHERE)));
    }

    #[test]
    fn a_report_that_contradicts_itself_is_refused() {
        for (usage, why) in [
            (json!({ "output_tokens": -7 }), UsageRefused::NotACount { field: "output_tokens", count: -7 }),
            (
                json!({ "cache_creation_input_tokens": 3, "cache_creation": { "ephemeral_5m_input_tokens": 4 } }),
                UsageRefused::PartsExceed { whole: "cache_creation_input_tokens", parts: 4, total: 3 },
            ),
            (
                json!({ "server_tool_use": { "web_search_requests": -1 } }),
                UsageRefused::NotACount { field: "web_search_requests", count: -1 },
            ),
            (json!({ "service_tier": "gold" }), UsageRefused::UnknownWord { field: "service_tier" }),
            (json!({ "speed": "warp" }), UsageRefused::UnknownWord { field: "speed" }),
            (json!({ "inference_geo": "The Moon" }), UsageRefused::UnknownWord { field: "inference_geo" }),
        ] {
            assert_eq!(read(usage.clone()).normalised(), Err(why), "{usage}");
        }
    }
}
