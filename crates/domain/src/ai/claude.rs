//! Claude's usage. Its input parts do not overlap; its output includes reasoning, not reported separately.

use serde::{Deserialize, Serialize};

use super::reports::{UsageReading, largest};
use super::told::{Notes, Told};
use super::usage::{CallUsage, Geo, Tier, TokenUsage, ToolCalls, UsageSource};

/// `usage` as it is sent, in a message or an event. Fields that are absent or null count as not reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "Told")]
pub struct ClaudeUsage {
    pub input_tokens: Option<i64>,
    pub cache_creation_input_tokens: Option<i64>,
    pub cache_read_input_tokens: Option<i64>,
    pub cache_creation: Option<CacheCreation>,
    pub output_tokens: Option<i64>,
    /// The sums over `iterations`: all model calls that the provider made for this one.
    pub iterations: Option<Box<ClaudeIterations>>,
    pub server_tool_use: Option<ServerToolUse>,
    pub service_tier: Option<String>,
    pub speed: Option<String>,
    pub inference_geo: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CacheCreation {
    pub ephemeral_5m_input_tokens: Option<i64>,
    pub ephemeral_1h_input_tokens: Option<i64>,
}

/// If the provider compacts a conversation or calls another model in between, the numbers beside this list cover only
/// the final answer, but the bill covers all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are the provider's")]
pub struct ClaudeIterations {
    pub input_tokens: Option<i64>,
    pub cache_creation_input_tokens: Option<i64>,
    pub cache_read_input_tokens: Option<i64>,
    pub ephemeral_5m_input_tokens: Option<i64>,
    pub ephemeral_1h_input_tokens: Option<i64>,
    pub output_tokens: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are the provider's")]
pub struct ServerToolUse {
    pub web_search_requests: Option<i64>,
    pub web_fetch_requests: Option<i64>,
    pub code_execution_requests: Option<i64>,
}

impl From<Told> for ClaudeUsage {
    fn from(told: Told) -> Self {
        Self {
            input_tokens: told.number(&["input_tokens"]),
            cache_creation_input_tokens: told.number(&["cache_creation_input_tokens"]),
            cache_read_input_tokens: told.number(&["cache_read_input_tokens"]),
            cache_creation: told.part(&["cache_creation"]).map(|creation| CacheCreation {
                ephemeral_5m_input_tokens: creation.number(&["ephemeral_5m_input_tokens"]),
                ephemeral_1h_input_tokens: creation.number(&["ephemeral_1h_input_tokens"]),
            }),
            output_tokens: told.number(&["output_tokens"]),
            iterations: told.list("iterations").map(ClaudeIterations::of).map(Box::new),
            server_tool_use: told.part(&["server_tool_use"]).map(|tools| ServerToolUse {
                web_search_requests: tools.number(&["web_search_requests"]),
                web_fetch_requests: tools.number(&["web_fetch_requests"]),
                code_execution_requests: tools.number(&["code_execution_requests"]),
            }),
            service_tier: told.word("service_tier"),
            speed: told.word("speed"),
            inference_geo: told.word("inference_geo"),
        }
    }
}

impl ClaudeIterations {
    fn of(list: &[Told]) -> Self {
        let sum = |number: &dyn Fn(&Told) -> Option<i64>| {
            list.iter().filter_map(number).map(|number| number.max(0)).reduce(i64::saturating_add)
        };
        let plain = |name: &'static str| sum(&move |one: &Told| one.number(&[name]));
        let written = |name: &'static str| sum(&move |one: &Told| one.part(&["cache_creation"])?.number(&[name]));
        Self {
            input_tokens: plain("input_tokens"),
            cache_creation_input_tokens: plain("cache_creation_input_tokens"),
            cache_read_input_tokens: plain("cache_read_input_tokens"),
            ephemeral_5m_input_tokens: written("ephemeral_5m_input_tokens"),
            ephemeral_1h_input_tokens: written("ephemeral_1h_input_tokens"),
            output_tokens: plain("output_tokens"),
        }
    }

    fn followed_by(self, later: Self) -> Self {
        Self {
            input_tokens: largest(self.input_tokens, later.input_tokens),
            cache_creation_input_tokens: largest(self.cache_creation_input_tokens, later.cache_creation_input_tokens),
            cache_read_input_tokens: largest(self.cache_read_input_tokens, later.cache_read_input_tokens),
            ephemeral_5m_input_tokens: largest(self.ephemeral_5m_input_tokens, later.ephemeral_5m_input_tokens),
            ephemeral_1h_input_tokens: largest(self.ephemeral_1h_input_tokens, later.ephemeral_1h_input_tokens),
            output_tokens: largest(self.output_tokens, later.output_tokens),
        }
    }
}

impl ClaudeUsage {
    /// Merges a later event of the same message. Numbers are cumulative, so the larger one is kept, and fields that the
    /// later event does not report stay.
    #[must_use]
    pub fn followed_by(self, later: Self) -> Self {
        let creation = |one: CacheCreation, other: CacheCreation| CacheCreation {
            ephemeral_5m_input_tokens: largest(one.ephemeral_5m_input_tokens, other.ephemeral_5m_input_tokens),
            ephemeral_1h_input_tokens: largest(one.ephemeral_1h_input_tokens, other.ephemeral_1h_input_tokens),
        };
        let tools = |one: ServerToolUse, other: ServerToolUse| ServerToolUse {
            web_search_requests: largest(one.web_search_requests, other.web_search_requests),
            web_fetch_requests: largest(one.web_fetch_requests, other.web_fetch_requests),
            code_execution_requests: largest(one.code_execution_requests, other.code_execution_requests),
        };
        Self {
            input_tokens: largest(self.input_tokens, later.input_tokens),
            cache_creation_input_tokens: largest(self.cache_creation_input_tokens, later.cache_creation_input_tokens),
            cache_read_input_tokens: largest(self.cache_read_input_tokens, later.cache_read_input_tokens),
            cache_creation: both(self.cache_creation, later.cache_creation, creation),
            output_tokens: largest(self.output_tokens, later.output_tokens),
            iterations: both(self.iterations, later.iterations, |one, other| Box::new(one.followed_by(*other))),
            server_tool_use: both(self.server_tool_use, later.server_tool_use, tools),
            service_tier: later.service_tier.or(self.service_tier),
            speed: later.speed.or(self.speed),
            inference_geo: later.inference_geo.or(self.inference_geo),
        }
    }

    pub fn read(&self) -> UsageReading {
        let mut notes = Notes::default();
        let creation = self.cache_creation.clone().unwrap_or_default();
        let all = self.iterations.as_deref().copied().unwrap_or_default();
        let short = largest(creation.ephemeral_5m_input_tokens, all.ephemeral_5m_input_tokens);
        let long = largest(creation.ephemeral_1h_input_tokens, all.ephemeral_1h_input_tokens);
        let short = notes.part("ephemeral_5m_input_tokens", short);
        let long = notes.part("ephemeral_1h_input_tokens", long);
        let sum = largest(self.cache_creation_input_tokens, all.cache_creation_input_tokens);
        let (cache_write_short, cache_write_long) = notes.cache_writes("cache_creation_input_tokens", sum, short, long);
        let input = notes.count("input_tokens", largest(self.input_tokens, all.input_tokens));
        let output = notes.count("output_tokens", largest(self.output_tokens, all.output_tokens));
        let cache_read = largest(self.cache_read_input_tokens, all.cache_read_input_tokens);
        let tools = self.server_tool_use.clone().unwrap_or_default();
        let tokens = TokenUsage {
            uncached_input: input.unwrap_or_default(),
            cache_read: notes.part("cache_read_input_tokens", cache_read),
            cache_write_short,
            cache_write_long,
            visible_output: output.unwrap_or_default(),
            tool_calls: ToolCalls {
                web_search: notes.part("web_search_requests", tools.web_search_requests),
                web_fetch: notes.part("web_fetch_requests", tools.web_fetch_requests),
                code_execution: notes.part("code_execution_requests", tools.code_execution_requests),
            },
            ..TokenUsage::default()
        };
        let (tier, geo) = (self.tier(&mut notes), self.geo(&mut notes));
        let usage = CallUsage { tokens, tier, geo, source: UsageSource::Provider };
        let tells_input = input.is_some() || tokens.input() > 0;
        UsageReading::of(usage, tells_input, output.is_some(), None, "", notes)
    }

    /// Fast is a tier of its own, whatever `service_tier` says. An unknown value is standard.
    fn tier(&self, notes: &mut Notes) -> Tier {
        match self.speed.as_deref() {
            None | Some("standard") => {}
            Some("fast") => return Tier::Fast,
            Some(_) => notes.add("speed"),
        }
        let said = self.service_tier.as_deref().unwrap_or("standard");
        said.parse().unwrap_or_else(|_| {
            notes.add("service_tier");
            Tier::Standard
        })
    }

    fn geo(&self, notes: &mut Notes) -> Geo {
        match self.inference_geo.as_deref() {
            None | Some("global" | "not_available") => Geo::ANYWHERE,
            Some(said) => Geo::parse(said).unwrap_or_else(|_| {
                notes.add("inference_geo");
                Geo::ANYWHERE
            }),
        }
    }
}

fn both<T>(earlier: Option<T>, later: Option<T>, merge: impl Fn(T, T) -> T) -> Option<T> {
    match (earlier, later) {
        (Some(earlier), Some(later)) => Some(merge(earlier, later)),
        (earlier, later) => later.or(earlier),
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
        .read()
        .usage;
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
    fn later_events_add_to_what_was_said() {
        let start = read(json!({ "input_tokens": 3, "cache_creation_input_tokens": 100, "cache_read_input_tokens": 50,
            "cache_creation": { "ephemeral_5m_input_tokens": 40, "ephemeral_1h_input_tokens": 60 },
            "output_tokens": 1, "service_tier": "standard", "inference_geo": "us" }));
        let delta = read(json!({ "output_tokens": 7 }));
        let merged = start.clone().followed_by(delta);
        assert_eq!(merged, ClaudeUsage { output_tokens: Some(7), ..start });
        let repeats = read(json!({ "input_tokens": 5, "cache_read_input_tokens": 0, "output_tokens": 9,
            "server_tool_use": { "web_search_requests": 1 } }));
        let tokens = merged.followed_by(repeats).read().usage.tokens;
        assert_eq!((tokens.uncached_input, tokens.cache_read, tokens.visible_output), (5, 50, 9));
        assert_eq!((tokens.cache_write_short, tokens.cache_write_long), (40, 60));
        assert_eq!(tokens.tool_calls.web_search, 1);
    }

    #[test]
    fn all_calls_of_models_within_one_are_billed() {
        let iteration = |input, output| {
            json!({ "type": "compaction", "input_tokens": input, "output_tokens": output, "cache_read_input_tokens": 7,
                "cache_creation_input_tokens": 5, "cache_creation": { "ephemeral_1h_input_tokens": 5 } })
        };
        let usage = json!({ "input_tokens": 20, "output_tokens": 9,
            "iterations": [iteration(3_000, 400), iteration(20, 9), { "input_tokens": "x", "output_tokens": -4 }, 5] });
        let whole = read(usage.clone()).read().usage.tokens;
        assert_eq!((whole.uncached_input, whole.cache_read, whole.visible_output), (3_020, 14, 409));
        assert_eq!((whole.cache_write_short, whole.cache_write_long), (0, 10));
        let merged = read(json!({ "input_tokens": 9_000, "iterations": [] })).followed_by(read(usage)).read();
        assert_eq!((merged.usage.tokens.uncached_input, merged.usage.tokens.visible_output), (9_000, 409));
        let endless =
            read(json!({ "iterations": [{ "input_tokens": i64::MAX }, { "input_tokens": i64::MAX }] })).read();
        assert_eq!(
            (endless.usage.tokens.uncached_input, endless.odd_fields),
            (crate::ai::TOKENS_MAX, vec!["input_tokens"])
        );
    }

    #[test]
    fn writes_that_are_not_told_apart_are_short() {
        let usage = read(json!({ "cache_creation_input_tokens": 100 })).read().usage.tokens;
        assert_eq!((usage.cache_write_short, usage.cache_write_long), (100, 0));
        let usage = read(json!({ "cache_creation": { "ephemeral_1h_input_tokens": 5 } })).read().usage.tokens;
        assert_eq!((usage.cache_write_short, usage.cache_write_long), (0, 5));
        let grown = read(json!({ "cache_creation_input_tokens": 9, "cache_creation": {
            "ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 5 } }));
        let usage = grown.read().usage.tokens;
        assert_eq!((usage.cache_write_short, usage.cache_write_long), (4, 5));
    }

    #[test]
    fn fast_goes_before_the_tier_and_silence_is_standard() {
        let of = |usage| {
            let read = read(usage).read();
            (read.usage.tier, read.usage.geo, read.odd_fields)
        };
        assert_eq!(of(json!({})), (Tier::Standard, Geo::ANYWHERE, vec![]));
        assert_eq!(
            of(json!({ "speed": "standard", "inference_geo": "not_available", "service_tier": "batch" })),
            (Tier::Batch, Geo::ANYWHERE, vec![])
        );
        assert_eq!(of(json!({ "speed": "fast", "service_tier": "standard" })), (Tier::Fast, Geo::ANYWHERE, vec![]));
    }

    #[test]
    fn a_word_or_a_sum_that_is_not_understood_takes_no_number_with_it() {
        for (mut usage, input, odd) in [
            (json!({ "service_tier": "flexi" }), 3_000, "service_tier"),
            (json!({ "speed": "turbo" }), 3_000, "speed"),
            (json!({ "inference_geo": "The Moon" }), 3_000, "inference_geo"),
            (json!({ "server_tool_use": { "web_search_requests": -1 } }), 3_000, "web_search_requests"),
            (
                json!({ "cache_creation_input_tokens": 3, "cache_creation": { "ephemeral_5m_input_tokens": 4 } }),
                3_004,
                "cache_creation_input_tokens",
            ),
            (json!({ "cache_read_input_tokens": -5 }), 3_000, "cache_read_input_tokens"),
        ] {
            (usage["input_tokens"], usage["output_tokens"]) = (json!(3_000), json!("1000"));
            let read = read(usage.clone()).read();
            assert_eq!((read.usage.tokens.input(), read.usage.tokens.output()), (input, 1_000), "{usage}");
            assert_eq!(read.odd_fields, [odd], "{usage}");
        }
        let odd =
            read(json!({ "input_tokens": 7, "output_tokens": {}, "service_tier": 5, "cache_creation": [] })).read();
        assert_eq!((odd.usage.tokens.input(), odd.tells_input, odd.tells_output), (7, true, false));
    }
}
