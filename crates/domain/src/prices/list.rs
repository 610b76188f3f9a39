//! The price list, and which row applies to a part of a call.
//!
//! A row is looked up in this order: the model's own rows, then those of the model that its name is an alias of; within
//! each, the tier and region of the call, the tier anywhere, the standard tier in the region, the standard tier
//! anywhere. The first group with an applicable row is used; of its rows, the one with the highest threshold that the
//! request exceeds prices the whole request. So a tier or a region without a price of its own costs what the model
//! costs without them: a call that was made is billed, and an operator who knows a higher price adds it.
//!
//! A kind without a row uses the dearest of its substitutes, or without those the dearest of input and output, so a
//! model with a price for either has one for all its tokens. A kind's own row that is less specific than its
//! substitute's row (of a later group, or, for all kinds but cache reads, for any size where the substitute's is for
//! large requests) applies only if it is the dearer one.

use std::collections::HashMap;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::kinds::PriceKind;
use super::money::UnitPrice;
use crate::ai::{Geo, ModelId, ProviderId, Tier};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PriceId(pub Uuid);

/// What a price is for. At any time there is at most one price per key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PriceKey {
    pub provider: ProviderId,
    pub model: ModelId,
    pub kind: PriceKind,
    pub tier: Tier,
    pub geo: Geo,
    /// The price applies to requests with more input than this; 0 applies to all.
    pub threshold_tokens: u64,
}

/// The origin of a price: `config/models.toml`, or an operator, whose rows the file never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PriceSource {
    Catalogue,
    Operator,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a price comes from catalogue or operator")]
pub struct UnknownPriceSource;

impl PriceSource {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Catalogue => "catalogue",
            Self::Operator => "operator",
        }
    }
}

impl FromStr for PriceSource {
    type Err = UnknownPriceSource;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Catalogue, Self::Operator].into_iter().find(|source| source.as_str() == text).ok_or(UnknownPriceSource)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPrice {
    pub id: PriceId,
    pub key: PriceKey,
    pub price: UnitPrice,
    /// The edition that it belongs to: the catalogue's version, or the operator's own label.
    pub version: String,
    pub source: PriceSource,
    pub valid_from: DateTime<Utc>,
    /// Exclusive; `None` is valid until another price follows.
    pub valid_to: Option<DateTime<Utc>>,
}

impl ModelPrice {
    pub fn is_in_force(&self, at: DateTime<Utc>) -> bool {
        self.valid_from <= at && self.valid_to.is_none_or(|end| at < end)
    }

    /// Whether a request with this much input exceeds the threshold.
    pub(super) const fn applies_to(&self, input: u64) -> bool {
        self.key.threshold_tokens == 0 || self.key.threshold_tokens < input
    }
}

/// The prices of every model with their validity; look-ups take a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriceList {
    rows: HashMap<(ProviderId, ModelId), Vec<ModelPrice>>,
    /// Other names of models, and the models that they are priced as.
    aliases: HashMap<(ProviderId, ModelId), ModelId>,
}

impl PriceList {
    pub fn new(
        prices: impl IntoIterator<Item = ModelPrice>,
        aliases: impl IntoIterator<Item = (ProviderId, ModelId, ModelId)>,
    ) -> Self {
        let mut rows: HashMap<_, Vec<_>> = HashMap::new();
        for price in prices {
            rows.entry((price.key.provider, price.key.model.clone())).or_default().push(price);
        }
        // Sorted, so that the order of the arguments does not matter.
        for rows in rows.values_mut() {
            rows.sort_by(|one, other| one.key.cmp(&other.key));
        }
        let aliases = aliases.into_iter().map(|(provider, alias, model)| ((provider, alias), model)).collect();
        Self { rows, aliases }
    }

    /// The models that have a price of their own at this time.
    pub fn priced_models(&self, at: DateTime<Utc>) -> Vec<(ProviderId, ModelId)> {
        let priced = self.rows.iter().filter(|(_, rows)| rows.iter().any(|row| row.is_in_force(at)));
        let mut models: Vec<_> = priced.map(|(model, _)| model.clone()).collect();
        models.sort();
        models
    }

    /// Whether a model has a price of its own at this time.
    pub fn is_priced(&self, provider: ProviderId, model: &ModelId, at: DateTime<Utc>) -> bool {
        let rows = self.rows.get(&(provider, model.clone()));
        rows.is_some_and(|rows| rows.iter().any(|row| row.is_in_force(at)))
    }

    /// The prices in force for a model, and for the model that its name is an alias of.
    pub fn rates(&self, provider: ProviderId, model: &ModelId, at: DateTime<Utc>) -> ModelRates<'_> {
        let name = (provider, model.clone());
        let in_force = |name: &(ProviderId, ModelId)| {
            let rows = self.rows.get(name).map(Vec::as_slice).unwrap_or_default();
            rows.iter().filter(|row| row.is_in_force(at)).collect()
        };
        let of_alias = self.aliases.get(&name).map(|model| in_force(&(provider, model.clone())));
        ModelRates { own: in_force(&name), of_alias: of_alias.unwrap_or_default() }
    }
}

/// The prices of one model at one time.
#[derive(Clone, Debug)]
pub struct ModelRates<'a> {
    own: Vec<&'a ModelPrice>,
    of_alias: Vec<&'a ModelPrice>,
}

impl<'a> ModelRates<'a> {
    pub fn rows(&self) -> impl Iterator<Item = &'a ModelPrice> + '_ {
        self.own.iter().chain(&self.of_alias).copied()
    }

    /// The row that applies to a kind in a request with this much input; it may be another kind's, as a substitute.
    pub(super) fn find(&self, kind: PriceKind, tier: Tier, geo: &Geo, input: u64) -> Option<&'a ModelPrice> {
        let own = self.find_own(kind, tier, geo, input);
        let dearest_of = |kinds: &[PriceKind]| {
            let found = kinds.iter().filter_map(|other| self.find_own(*other, tier, geo, input));
            found.max_by_key(|(_, row)| row.price)
        };
        let other = dearest_of(kind.substitutes());
        let Some((order, row)) = own else {
            return other.or_else(|| dearest_of(kind.last_substitutes())).map(|(_, row)| row);
        };
        let Some(other) = other else { return Some(row) };
        let is_plain = matches!(kind, PriceKind::Input | PriceKind::Output);
        let is_of_smaller = kind.is_no_cheaper()
            && row.key.threshold_tokens < other.1.key.threshold_tokens
            && !self.has_sizes(&row.key);
        let comes_later = !is_plain && (order > other.0 || is_of_smaller);
        Some(if comes_later && other.1.price > row.price { other.1 } else { row })
    }

    /// Whether a kind has prices for larger requests at the tier and region of this row.
    fn has_sizes(&self, of: &PriceKey) -> bool {
        let stands_there = |key: &PriceKey| (key.kind, key.tier, &key.geo) == (of.kind, of.tier, &of.geo);
        self.rows().any(|row| stands_there(&row.key) && row.key.threshold_tokens > 0)
    }

    /// The row of the kind itself, with the position of its group in the look-up order.
    fn find_own(&self, kind: PriceKind, tier: Tier, geo: &Geo, input: u64) -> Option<(usize, &'a ModelPrice)> {
        self.groups(kind, tier, geo).enumerate().find_map(|(order, group)| {
            let fitting = group.into_iter().filter(|row| row.applies_to(input));
            fitting.max_by_key(|row| row.key.threshold_tokens).map(|row| (order, row))
        })
    }

    /// The dearest row of the kind itself that can apply to a request with at most this much input.
    pub(super) fn dearest(&self, kind: PriceKind, tier: Tier, geo: &Geo, input: u64) -> Option<&'a ModelPrice> {
        let mut dearest: Option<&'a ModelPrice> = None;
        for group in self.groups(kind, tier, geo) {
            let holds_for_all = group.iter().any(|row| row.key.threshold_tokens == 0);
            let fitting = group.into_iter().filter(|row| row.applies_to(input));
            dearest = dearest.into_iter().chain(fitting).max_by_key(|row| row.price);
            // Every smaller request finds a row in this group at the latest.
            if holds_for_all {
                break;
            }
        }
        dearest
    }

    /// The rows of a kind in look-up order; rows that differ only by threshold form a group.
    fn groups(&self, kind: PriceKind, tier: Tier, geo: &Geo) -> impl Iterator<Item = Vec<&'a ModelPrice>> {
        let places = [
            (tier, geo.clone()),
            (tier, Geo::ANYWHERE),
            (Tier::Standard, geo.clone()),
            (Tier::Standard, Geo::ANYWHERE),
        ];
        [&self.own, &self.of_alias].into_iter().flat_map(move |rows| {
            places.clone().into_iter().map(move |(tier, geo)| {
                let is_asked = |row: &&&ModelPrice| row.key.kind == kind && row.key.tier == tier && row.key.geo == geo;
                rows.iter().filter(is_asked).copied().collect()
            })
        })
    }
}
