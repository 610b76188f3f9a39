//! Helpers for the tests of prices.

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

use super::kinds::PriceKind;
use super::list::{ModelPrice, PriceId, PriceKey, PriceSource};
use super::money::UnitPrice;
use crate::ai::{Geo, ModelId, ProviderId, Tier, TokenUsage};

/// A fixed time plus this many seconds.
pub fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::seconds(seconds)
}

pub fn model(name: &str) -> ModelId {
    ModelId::parse(name).unwrap()
}

pub fn usd(per_million: Decimal) -> UnitPrice {
    UnitPrice::per_million(per_million).unwrap()
}

/// The standard input price of a model of Claude.
pub fn key(name: &str) -> PriceKey {
    PriceKey {
        provider: ProviderId::CLAUDE,
        model: model(name),
        kind: PriceKind::Input,
        tier: Tier::Standard,
        geo: Geo::ANYWHERE,
        threshold_tokens: 0,
    }
}

/// A price that is valid from the Unix epoch.
pub fn row(name: &str, per_million: Decimal) -> ModelPrice {
    ModelPrice {
        id: PriceId(Uuid::nil()),
        key: key(name),
        price: usd(per_million),
        version: "v1".into(),
        source: PriceSource::Catalogue,
        valid_from: DateTime::UNIX_EPOCH,
        valid_to: None,
    }
}

/// The usage with one part replaced.
pub fn with_part(mut tokens: TokenUsage, kind: PriceKind, count: u64) -> TokenUsage {
    let part = match kind {
        PriceKind::Input => &mut tokens.uncached_input,
        PriceKind::CacheRead => &mut tokens.cache_read,
        PriceKind::CacheWriteShort => &mut tokens.cache_write_short,
        PriceKind::CacheWriteLong => &mut tokens.cache_write_long,
        PriceKind::Output => &mut tokens.visible_output,
        PriceKind::Reasoning => &mut tokens.reasoning_output,
        PriceKind::AudioInput => &mut tokens.audio_input,
        PriceKind::AudioOutput => &mut tokens.audio_output,
        PriceKind::ImageInput => &mut tokens.image_input,
        PriceKind::ImageOutput => &mut tokens.image_output,
        PriceKind::SearchCall => &mut tokens.tool_calls.web_search,
        PriceKind::FetchCall => &mut tokens.tool_calls.web_fetch,
        PriceKind::CodeCall => &mut tokens.tool_calls.code_execution,
    };
    *part = count;
    tokens
}
