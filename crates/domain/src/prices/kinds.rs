//! What can have a price: each part of a usage, under its name in the tables.

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
    /// Of calls, not of tokens; the price is for a million of them all the same.
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

    /// The kind whose price holds where this one has none. Only where the providers bill so, and never a cheaper one:
    /// reasoning is output, a picture that goes in is input, and what was read from a cache went in. A write to a cache,
    /// sound, and pictures that come out are dearer than text, so without a price of their own they have none.
    pub const fn substitute(self) -> Option<Self> {
        match self {
            Self::Reasoning => Some(Self::Output),
            Self::CacheRead | Self::ImageInput => Some(Self::Input),
            _ => None,
        }
    }

    /// How much of this kind is in a usage.
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
}
