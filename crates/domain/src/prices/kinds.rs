//! The kinds of prices: one for each part of a usage, with its name in the tables.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ai::TokenUsage;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PriceKind {
    Input,
    CacheRead,
    CacheWriteShort,
    CacheWriteLong,
    Output,
    Reasoning,
    AudioInput,
    AudioOutput,
    ImageInput,
    ImageOutput,
    /// Per call, not per token; the price is still per million.
    SearchCall,
    FetchCall,
    CodeCall,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("this is no kind of price")]
pub struct UnknownKind;

impl PriceKind {
    pub const ALL: [Self; 13] = [
        Self::Input,
        Self::CacheRead,
        Self::CacheWriteShort,
        Self::CacheWriteLong,
        Self::Output,
        Self::Reasoning,
        Self::AudioInput,
        Self::AudioOutput,
        Self::ImageInput,
        Self::ImageOutput,
        Self::SearchCall,
        Self::FetchCall,
        Self::CodeCall,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::CacheRead => "cache_read",
            Self::CacheWriteShort => "cache_write_short",
            Self::CacheWriteLong => "cache_write_long",
            Self::Output => "output",
            Self::Reasoning => "reasoning",
            Self::AudioInput => "audio_input",
            Self::AudioOutput => "audio_output",
            Self::ImageInput => "image_input",
            Self::ImageOutput => "image_output",
            Self::SearchCall => "search_call",
            Self::FetchCall => "fetch_call",
            Self::CodeCall => "code_call",
        }
    }

    /// The kinds that replace this one where it has no price; the dearest of their prices is used. So no token is free
    /// or cheaper than a plain one: input is priced as input, output as output. Tool calls have `assumed_usd` instead.
    pub const fn substitutes(self) -> &'static [Self] {
        match self {
            Self::CacheRead | Self::CacheWriteShort | Self::AudioInput | Self::ImageInput | Self::Output => {
                &[Self::Input]
            }
            Self::CacheWriteLong => &[Self::CacheWriteShort, Self::Input],
            Self::Input | Self::Reasoning | Self::AudioOutput | Self::ImageOutput => &[Self::Output],
            Self::SearchCall | Self::FetchCall | Self::CodeCall => &[],
        }
    }

    /// The kinds used where neither this kind nor its substitutes have a price. So a model with a price for input or
    /// output only has a price for all tokens.
    pub const fn last_substitutes(self) -> &'static [Self] {
        if self.substitutes().is_empty() { &[] } else { &[Self::Input, Self::Output] }
    }

    /// Whether providers never bill this kind below a plain token: true for all kinds but cache reads.
    pub const fn is_no_cheaper(self) -> bool {
        !matches!(self, Self::CacheRead)
    }

    /// Dollars per million tool calls for a model without a price for them: the price of the dearest provider in
    /// November 2026, or one cent per call if no provider charged for it.
    pub const fn assumed_usd(self) -> Option<i64> {
        match self {
            Self::SearchCall => Some(35_000),
            Self::FetchCall => Some(10_000),
            Self::CodeCall => Some(50_000),
            _ => None,
        }
    }

    /// The number of units of this kind in a usage.
    pub const fn count_in(self, usage: &TokenUsage) -> u64 {
        match self {
            Self::Input => usage.uncached_input,
            Self::CacheRead => usage.cache_read,
            Self::CacheWriteShort => usage.cache_write_short,
            Self::CacheWriteLong => usage.cache_write_long,
            Self::Output => usage.visible_output,
            Self::Reasoning => usage.reasoning_output,
            Self::AudioInput => usage.audio_input,
            Self::AudioOutput => usage.audio_output,
            Self::ImageInput => usage.image_input,
            Self::ImageOutput => usage.image_output,
            Self::SearchCall => usage.tool_calls.web_search,
            Self::FetchCall => usage.tool_calls.web_fetch,
            Self::CodeCall => usage.tool_calls.code_execution,
        }
    }
}

impl FromStr for PriceKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(UnknownKind)
    }
}

impl fmt::Display for PriceKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_read_as_it_is_written() {
        for kind in PriceKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
        assert_eq!("video".parse::<PriceKind>(), Err(UnknownKind));
    }

    #[test]
    fn no_kind_is_without_a_price() {
        for kind in PriceKind::ALL {
            assert!(kind.substitutes().is_empty() == kind.assumed_usd().is_some(), "{kind}");
        }
    }
}
