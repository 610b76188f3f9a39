//! Prices: what a model's tokens cost, from when, and the cost of a call.
//!
//! A price is a row for one kind of token of one model at one tier, in one region, above one input size, for one span
//! of time. It is never edited, only closed, so an old call can be priced again. Money is counted in whole
//! nano-dollars; the cost of a call is rounded once, half to even.

mod catalogue;
mod changes;
mod cost;
#[cfg(test)]
mod cost_properties;
#[cfg(test)]
mod cost_tests;
mod kinds;
mod list;
mod money;
#[cfg(test)]
mod testing;

pub use catalogue::{
    CatalogueModel, CataloguePrice, CatalogueRefused, CatalogueVersion, ModelCatalogue, ModelPurpose, PriceFactors,
    expand,
};
pub use changes::{CatalogueChange, PlacedPrice, PriceDraft, PriceRefused, place, refresh};
pub use cost::{Cost, CostError, UsageEstimate};
pub use kinds::{PriceKind, UnknownKind};
pub use list::{ModelPrice, PriceId, PriceKey, PriceList, PriceSource, UnknownPriceSource};
pub use money::{AmountRefused, NanoUsd, UnitPrice, UnitPriceRefused};
