//! The usage of a call, in parts that do not overlap: each token is counted in exactly one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// More than any call can use: a larger number is an error of its source.
pub const TOKENS_MAX: u64 = 1_000_000_000;

const GEO_MAX_LENGTH: usize = 20;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenUsage {
    /// Text input that was neither read from a cache nor written to one.
    pub uncached_input: u64,
    pub cache_read: u64,
    /// Written to a cache with a lifetime of minutes: Claude's five, `OpenAI`'s default.
    pub cache_write_short: u64,
    /// Written to a cache with a lifetime of hours: Claude's one, `OpenAI`'s twelve.
    pub cache_write_long: u64,
    pub audio_input: u64,
    /// Images and video.
    pub image_input: u64,
    pub visible_output: u64,
    /// Reasoning that is billed and not shown, if the provider reports it separately.
    pub reasoning_output: u64,
    pub audio_output: u64,
    pub image_output: u64,
    /// Calls of the provider's own tools; they are not tokens.
    pub tool_calls: ToolCalls,
}

/// Calls of tools that run at the provider and are billed per call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ToolCalls {
    pub web_search: u64,
    pub web_fetch: u64,
    pub code_execution: u64,
}

impl TokenUsage {
    /// All input. It decides whether a request is a long one. Saturating, like the other sums.
    pub fn input(&self) -> u64 {
        let Self { uncached_input, cache_read, cache_write_short, cache_write_long, audio_input, image_input, .. } =
            *self;
        sum([uncached_input, cache_read, cache_write_short, cache_write_long, audio_input, image_input])
    }

    /// All output.
    pub fn output(&self) -> u64 {
        sum([self.visible_output, self.reasoning_output, self.audio_output, self.image_output])
    }

    /// The provider's total.
    pub fn total(&self) -> u64 {
        self.input().saturating_add(self.output())
    }
}

fn sum<const PARTS: usize>(parts: [u64; PARTS]) -> u64 {
    parts.into_iter().fold(0, u64::saturating_add)
}

/// The service tier of a call; the provider reports it with the usage, and it decides the price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    #[default]
    Standard,
    Batch,
    Flex,
    Priority,
    Fast,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a tier is standard, batch, flex, priority or fast")]
pub struct UnknownTier;

impl Tier {
    pub const ALL: [Self; 5] = [Self::Standard, Self::Batch, Self::Flex, Self::Priority, Self::Fast];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Batch => "batch",
            Self::Flex => "flex",
            Self::Priority => "priority",
            Self::Fast => "fast",
        }
    }
}

impl FromStr for Tier {
    type Err = UnknownTier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|tier| tier.as_str() == text).ok_or(UnknownTier)
    }
}

/// The region in which a call must be served, such as `us`; anywhere if none was requested.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Geo(String);

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a place has at most 20 characters of a-z, 0-9, _ and -")]
pub struct GeoRefused;

impl Geo {
    pub const ANYWHERE: Self = Self(String::new());

    /// Empty text is anywhere.
    pub fn parse(text: &str) -> Result<Self, GeoRefused> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
        if text.len() > GEO_MAX_LENGTH || !text.bytes().all(fits) {
            return Err(GeoRefused);
        }
        Ok(Self(text.to_owned()))
    }

    pub fn is_anywhere(&self) -> bool {
        self.0.is_empty()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where the numbers of a usage come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageSource {
    /// The provider reported them.
    Provider,
    /// The provider reported nothing; they are counted from the text.
    Estimated,
    /// The call ended early: what the provider had reported by then, or what was delivered.
    Partial,
    /// The built-in sandbox provider reported them; they are not billed.
    Sandbox,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a usage comes from provider, estimated, partial or sandbox")]
pub struct UnknownSource;

impl UsageSource {
    pub const ALL: [Self; 4] = [Self::Provider, Self::Estimated, Self::Partial, Self::Sandbox];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Estimated => "estimated",
            Self::Partial => "partial",
            Self::Sandbox => "sandbox",
        }
    }
}

impl FromStr for UsageSource {
    type Err = UnknownSource;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|source| source.as_str() == text).ok_or(UnknownSource)
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// All that the price of a call depends on, and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallUsage {
    pub tokens: TokenUsage,
    pub tier: Tier,
    pub geo: Geo,
    pub source: UsageSource,
}

impl CallUsage {
    /// A usage at the standard tier, served anywhere, as reported by the provider.
    pub const fn standard(tokens: TokenUsage) -> Self {
        Self { tokens, tier: Tier::Standard, geo: Geo::ANYWHERE, source: UsageSource::Provider }
    }

    /// The same with at least `total` tokens; missing ones are added as text output.
    #[must_use]
    pub fn up_to(mut self, total: Option<u64>) -> Self {
        let missing = total.unwrap_or_default().saturating_sub(self.tokens.total());
        self.tokens.visible_output = self.tokens.visible_output.saturating_add(missing);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_in_one_sum_and_a_call_of_a_tool_in_none() {
        let usage = TokenUsage {
            uncached_input: 1,
            cache_read: 2,
            cache_write_short: 4,
            cache_write_long: 8,
            audio_input: 16,
            image_input: 32,
            visible_output: 64,
            reasoning_output: 128,
            audio_output: 256,
            image_output: 512,
            tool_calls: ToolCalls { web_search: 1_024, web_fetch: 1_024, code_execution: 1_024 },
        };
        assert_eq!((usage.input(), usage.output(), usage.total()), (63, 960, 1_023));
        let endless = TokenUsage { uncached_input: u64::MAX, visible_output: 1, ..usage };
        assert_eq!(endless.total(), u64::MAX);
    }

    #[test]
    fn the_words_of_the_tables_are_read_as_they_are_written() {
        for tier in Tier::ALL {
            assert_eq!(tier.to_string().parse(), Ok(tier));
        }
        for source in UsageSource::ALL {
            assert_eq!(source.as_str().parse(), Ok(source));
        }
        assert!("scale".parse::<Tier>().is_err() && "guess".parse::<UsageSource>().is_err());
        assert_eq!(Geo::parse(""), Ok(Geo::ANYWHERE));
        for bad in ["US", "u s", &"u".repeat(21)] {
            assert_eq!(Geo::parse(bad), Err(GeoRefused), "{bad}");
        }
    }
}
