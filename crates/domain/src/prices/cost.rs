//! The cost of a call, and the upper bound of its cost.
//!
//! Counts and prices are 64-bit integers, their products are 128-bit, and every sum is checked: the result is exact up
//! to one rounding at the end, or an error.

use chrono::{DateTime, Utc};
use thiserror::Error;

use super::kinds::PriceKind;
use super::list::{ModelPrice, ModelRates, PriceList};
use super::money::NanoUsd;
use crate::ai::{CallUsage, Geo, ModelId, ProviderId, Tier, ToolCalls};

/// The cost of a call, and the prices that it is based on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    pub amount: NanoUsd,
    /// The version of the row that came into force last among those used. Together with the time of the call it
    /// identifies the prices.
    pub version: String,
    /// The kinds that were used without an applicable price of their own, so that another kind's price was used.
    pub assumed: Vec<PriceKind>,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CostError {
    #[error("the model `{model}` of {provider} has no price")]
    UnpricedModel { provider: ProviderId, model: ModelId },
    #[error("the model `{model}` of {provider} has no price for `{kind}`")]
    UnpricedKind { provider: ProviderId, model: ModelId, kind: PriceKind },
    #[error("the call would cost more than can be counted")]
    TooLarge,
}

/// A call before it is made: the figures that bound its cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageEstimate {
    /// At least the input of the call.
    pub input_tokens: u64,
    /// The upper bound of output, reasoning included, times the number of answers requested.
    pub max_output_tokens: u64,
    /// Whether the input may contain audio.
    pub audio_input: bool,
    /// Whether the output may contain audio, and whether it may contain images.
    pub audio_output: bool,
    pub image_output: bool,
    /// How often each of the provider's tools may be called.
    pub tool_calls: ToolCalls,
    pub tier: Tier,
    pub geo: Geo,
}

impl UsageEstimate {
    /// Text input and output at the standard tier.
    pub const fn text(input_tokens: u64, max_output_tokens: u64) -> Self {
        Self {
            input_tokens,
            max_output_tokens,
            audio_input: false,
            audio_output: false,
            image_output: false,
            tool_calls: ToolCalls { web_search: 0, web_fetch: 0, code_execution: 0 },
            tier: Tier::Standard,
            geo: Geo::ANYWHERE,
        }
    }

    /// The kinds that the input may consist of.
    fn input_kinds(&self) -> Vec<PriceKind> {
        let mut kinds =
            vec![PriceKind::CacheRead, PriceKind::CacheWriteShort, PriceKind::CacheWriteLong, PriceKind::ImageInput];
        kinds.extend(self.audio_input.then_some(PriceKind::AudioInput));
        kinds
    }

    fn output_kinds(&self) -> Vec<PriceKind> {
        let mut kinds = vec![PriceKind::Reasoning];
        kinds.extend(self.audio_output.then_some(PriceKind::AudioOutput));
        kinds.extend(self.image_output.then_some(PriceKind::ImageOutput));
        kinds
    }

    const fn calls(&self) -> [(PriceKind, u64); 3] {
        [
            (PriceKind::SearchCall, self.tool_calls.web_search),
            (PriceKind::FetchCall, self.tool_calls.web_fetch),
            (PriceKind::CodeCall, self.tool_calls.code_execution),
        ]
    }
}

impl PriceList {
    /// The cost of a call at the prices of `at`, the time at which it began.
    pub fn cost(
        &self,
        provider: ProviderId,
        model: &ModelId,
        usage: &CallUsage,
        at: DateTime<Utc>,
    ) -> Result<Cost, CostError> {
        let mut bill = self.open_bill(provider, model, at)?;
        let input = usage.tokens.input();
        for kind in PriceKind::ALL {
            let count = kind.count_in(&usage.tokens);
            if count > 0 {
                match bill.rates.find(kind, usage.tier, &usage.geo, input) {
                    Some(row) => bill.add_as(kind, row, count)?,
                    None => bill.add_assumed(kind, count)?,
                }
            }
        }
        bill.close()
    }

    /// The upper bound of the cost of a call at the prices of `at`, however much of its input is cached and however
    /// much shorter it is than the estimate. No usage within the estimate costs more.
    pub fn most(
        &self,
        provider: ProviderId,
        model: &ModelId,
        call: &UsageEstimate,
        at: DateTime<Utc>,
    ) -> Result<Cost, CostError> {
        let mut bill = self.open_bill(provider, model, at)?;
        let parts = [
            (PriceKind::Input, call.input_kinds(), call.input_tokens),
            (PriceKind::Output, call.output_kinds(), call.max_output_tokens),
        ];
        for (plain, kinds, count) in parts.into_iter().filter(|(_, _, count)| *count > 0) {
            let row = bill.dearest(plain, call).ok_or_else(|| bill.unpriced(plain))?;
            let others = kinds.into_iter().filter_map(|kind| bill.dearest(kind, call));
            let row = others.chain([row]).max_by_key(|row| row.price).unwrap_or(row);
            bill.add(row, count)?;
        }
        for (kind, count) in call.calls().into_iter().filter(|(_, count)| *count > 0) {
            match bill.dearest(kind, call) {
                Some(row) => bill.add(row, count)?,
                None => bill.add_assumed(kind, count)?,
            }
        }
        bill.close()
    }

    fn open_bill<'a>(
        &'a self,
        provider: ProviderId,
        model: &'a ModelId,
        at: DateTime<Utc>,
    ) -> Result<Bill<'a>, CostError> {
        let rates = self.rates(provider, model, at);
        let newest = rates.rows().map(stamp).max();
        let Some((_, version)) = newest else {
            return Err(CostError::UnpricedModel { provider, model: model.clone() });
        };
        Ok(Bill { provider, model, rates, pico: 0, newest: None, default_version: version, assumed: Vec::new() })
    }
}

/// When a row came into force, and its version.
fn stamp(row: &ModelPrice) -> (DateTime<Utc>, &str) {
    (row.valid_from, &row.version)
}

/// A cost that is being added up.
struct Bill<'a> {
    provider: ProviderId,
    model: &'a ModelId,
    rates: ModelRates<'a>,
    pico: u128,
    /// The latest of the rows used.
    newest: Option<(DateTime<Utc>, &'a str)>,
    /// For a call that used nothing.
    default_version: &'a str,
    assumed: Vec<PriceKind>,
}

impl<'a> Bill<'a> {
    fn add(&mut self, row: &'a ModelPrice, count: u64) -> Result<(), CostError> {
        self.pico = self.pico.checked_add(row.price.pico_usd(count)).ok_or(CostError::TooLarge)?;
        self.newest = self.newest.max(Some(stamp(row)));
        Ok(())
    }

    fn dearest(&self, kind: PriceKind, call: &UsageEstimate) -> Option<&'a ModelPrice> {
        self.rates.dearest(kind, call.tier, &call.geo, call.input_tokens)
    }

    /// Adds a row, which may be another kind's.
    fn add_as(&mut self, kind: PriceKind, row: &'a ModelPrice, count: u64) -> Result<(), CostError> {
        if row.key.kind != kind {
            self.assumed.push(kind);
        }
        self.add(row, count)
    }

    /// Adds a kind that has no row, at its assumed price.
    fn add_assumed(&mut self, kind: PriceKind, count: u64) -> Result<(), CostError> {
        let usd = kind.assumed_usd().ok_or_else(|| self.unpriced(kind))?;
        // One dollar per million is a million pico-dollars for one.
        let price = u128::from(usd.unsigned_abs()).saturating_mul(1_000_000);
        let pico = price.checked_mul(u128::from(count)).and_then(|cost| self.pico.checked_add(cost));
        self.pico = pico.ok_or(CostError::TooLarge)?;
        self.assumed.push(kind);
        Ok(())
    }

    fn unpriced(&self, kind: PriceKind) -> CostError {
        CostError::UnpricedKind { provider: self.provider, model: self.model.clone(), kind }
    }

    fn close(self) -> Result<Cost, CostError> {
        let amount = NanoUsd::from_pico(self.pico).ok_or(CostError::TooLarge)?;
        let version = self.newest.map_or(self.default_version, |(_, version)| version).to_owned();
        Ok(Cost { amount, version, assumed: self.assumed })
    }
}
