//! The catalogue: the models listed in `config/models.toml`, with their limits and prices. The file has the standard
//! prices and the factors for tiers and regions. Here they are expanded into one row per price, so pricing a call
//! multiplies no factors.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::kinds::PriceKind;
use super::list::PriceKey;
use super::money::{UnitPrice, UnitPriceRefused};
use crate::ai::{Geo, ModelId, ProviderId, Tier};

/// The catalogue's edition: a date, and `.1` to `.9` for several editions of a day. Later ones sort later.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CatalogueVersion(String);

impl CatalogueVersion {
    pub fn parse(text: &str) -> Result<Self, CatalogueRefused> {
        let (date, edition) = text.split_once('.').unwrap_or((text, "1"));
        let is_edition = edition.len() == 1 && matches!(edition.as_bytes(), [b'1'..=b'9']);
        // chrono parses 2026-1-2 too, and that would sort wrongly.
        if date.len() == 10 && date.parse::<NaiveDate>().is_ok() && is_edition {
            Ok(Self(text.to_owned()))
        } else {
            Err(CatalogueRefused::Version)
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CatalogueVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What a model is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelPurpose {
    #[default]
    Chat,
    Embedding,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CataloguePrice {
    pub key: PriceKey,
    pub price: UnitPrice,
    /// When the provider retires the model and the price ends.
    pub until: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueModel {
    pub provider: ProviderId,
    pub id: ModelId,
    /// Other names of the same model, at the same price.
    pub aliases: Vec<ModelId>,
    pub purpose: ModelPurpose,
    pub max_input_tokens: Option<u64>,
    pub max_output_tokens: Option<u64>,
    pub until: Option<DateTime<Utc>>,
    pub prices: Vec<CataloguePrice>,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CatalogueRefused {
    #[error("the version is a date such as 2026-11-12, or 2026-11-12.2 for the second of that day")]
    Version,
    #[error("the name `{0}` stands for two models of one provider")]
    NameTwice(ModelId),
    #[error("the model `{model}` has two prices for `{kind}` from {threshold_tokens} tokens on")]
    PriceTwice { model: ModelId, kind: PriceKind, threshold_tokens: u64 },
}

/// An edition's models. A name belongs to one model of a provider. The default is empty and older than all editions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelCatalogue {
    pub version: CatalogueVersion,
    models: Vec<CatalogueModel>,
}

impl ModelCatalogue {
    pub fn try_new(version: CatalogueVersion, models: Vec<CatalogueModel>) -> Result<Self, CatalogueRefused> {
        let (mut names, mut keys) = (HashSet::new(), HashSet::new());
        for model in &models {
            for name in model.aliases.iter().chain([&model.id]) {
                if !names.insert((model.provider, name.clone())) {
                    return Err(CatalogueRefused::NameTwice(name.clone()));
                }
            }
            for CataloguePrice { key, .. } in &model.prices {
                if !keys.insert(key.clone()) {
                    let (kind, threshold_tokens) = (key.kind, key.threshold_tokens);
                    return Err(CatalogueRefused::PriceTwice { model: model.id.clone(), kind, threshold_tokens });
                }
            }
        }
        Ok(Self { version, models })
    }

    pub fn models(&self) -> &[CatalogueModel] {
        &self.models
    }

    /// The model of this provider with this name, whether it is its id or an alias.
    pub fn find(&self, provider: ProviderId, name: &ModelId) -> Option<&CatalogueModel> {
        let is_meant = |model: &&CatalogueModel| model.id == *name || model.aliases.contains(name);
        self.models.iter().filter(|model| model.provider == provider).find(is_meant)
    }

    pub fn prices(&self) -> impl Iterator<Item = &CataloguePrice> {
        self.models.iter().flat_map(|model| &model.prices)
    }

    /// Every alias as `(provider, alias, id)`; prices are stored under the id.
    pub fn aliases(&self) -> impl Iterator<Item = (ProviderId, ModelId, ModelId)> + '_ {
        self.models
            .iter()
            .flat_map(|model| model.aliases.iter().map(|alias| (model.provider, alias.clone(), model.id.clone())))
    }
}

/// The factors by which a tier or a region changes the standard prices of a model. If both apply, they multiply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriceFactors {
    pub tiers: BTreeMap<Tier, Decimal>,
    pub geos: BTreeMap<Geo, Decimal>,
}

/// One standard price, expanded to every tier and region that has a factor.
pub fn expand(standard: &CataloguePrice, factors: &PriceFactors) -> Result<Vec<CataloguePrice>, UnitPriceRefused> {
    let tiers = || factors.tiers.iter().map(|(tier, factor)| (*tier, *factor)).chain([(Tier::Standard, Decimal::ONE)]);
    let geos = factors.geos.iter().map(|(geo, factor)| (geo.clone(), *factor)).chain([(Geo::ANYWHERE, Decimal::ONE)]);
    let places =
        geos.flat_map(|(geo, by_geo)| tiers().map(move |(tier, by_tier)| (tier, geo.clone(), by_tier, by_geo)));
    let one = |(tier, geo, by_tier, by_geo)| {
        let key = PriceKey { tier, geo, ..standard.key.clone() };
        let price = standard.price.times(by_tier)?.times(by_geo)?;
        Ok(CataloguePrice { key, price, until: standard.until })
    };
    places.map(one).collect()
}

#[cfg(test)]
mod tests {
    use rust_decimal::dec;

    use super::super::testing::{key, model, usd};
    use super::*;

    fn of(name: &str, aliases: &[&str], kinds: &[PriceKind]) -> CatalogueModel {
        let price = |kind: &PriceKind| CataloguePrice {
            key: PriceKey { kind: *kind, ..key(name) },
            price: usd(dec!(2)),
            until: None,
        };
        CatalogueModel {
            provider: ProviderId::CLAUDE,
            id: model(name),
            aliases: aliases.iter().map(|alias| model(alias)).collect(),
            purpose: ModelPurpose::Chat,
            max_input_tokens: None,
            max_output_tokens: None,
            until: None,
            prices: kinds.iter().map(price).collect(),
        }
    }

    fn version() -> CatalogueVersion {
        CatalogueVersion::parse("2026-11-12").unwrap()
    }

    #[test]
    fn versions_sort_by_their_days() {
        let parsed = |text| CatalogueVersion::parse(text).unwrap();
        assert!(parsed("2026-11-12") < parsed("2026-11-12.2") && parsed("2026-11-12.2") < parsed("2026-11-13"));
        for bad in ["", "2026-1-2", "2026-13-01", "2026-11-12.", "2026-11-12.0", "2026-11-12.10", "v1", "2026-11-12-a"]
        {
            assert_eq!(CatalogueVersion::parse(bad), Err(CatalogueRefused::Version), "{bad}");
        }
    }

    #[test]
    fn a_name_stands_for_one_model_and_a_price_once() {
        let catalogue = ModelCatalogue::try_new(version(), vec![of("a", &["b", "c"], &[]), of("d", &[], &[])]).unwrap();
        assert_eq!(catalogue.find(ProviderId::CLAUDE, &model("c")).unwrap().id, model("a"));
        assert_eq!(catalogue.find(ProviderId::CLAUDE, &model("e")), None);
        assert_eq!(catalogue.find(ProviderId::OPENAI, &model("c")), None);
        let elsewhere = CatalogueModel { provider: ProviderId::OPENAI, ..of("a", &[], &[]) };
        assert!(ModelCatalogue::try_new(version(), vec![of("a", &[], &[]), elsewhere]).is_ok());
        let aliases: Vec<_> = catalogue.aliases().collect();
        assert_eq!(aliases[1], (ProviderId::CLAUDE, model("c"), model("a")));
        let twice = ModelCatalogue::try_new(version(), vec![of("a", &["d"], &[]), of("d", &[], &[])]);
        assert_eq!(twice, Err(CatalogueRefused::NameTwice(model("d"))));
        let twice = ModelCatalogue::try_new(version(), vec![of("a", &[], &[PriceKind::Input, PriceKind::Input])]);
        let why = CatalogueRefused::PriceTwice { model: model("a"), kind: PriceKind::Input, threshold_tokens: 0 };
        assert_eq!(twice, Err(why));
    }

    #[test]
    fn factors_become_rows() {
        let factors = PriceFactors {
            tiers: [(Tier::Batch, dec!(0.5)), (Tier::Fast, dec!(2))].into(),
            geos: [(Geo::parse("us").unwrap(), dec!(1.1))].into(),
        };
        let standard = CataloguePrice { key: key("a"), price: usd(dec!(4)), until: None };
        let rows = expand(&standard, &factors).unwrap();
        let mut told: Vec<_> =
            rows.iter().map(|row| (row.key.tier.as_str(), row.key.geo.as_str(), row.price.to_string())).collect();
        told.sort();
        let expected = [
            ("batch", "", "2"),
            ("batch", "us", "2.2"),
            ("fast", "", "8"),
            ("fast", "us", "8.8"),
            ("standard", "", "4"),
            ("standard", "us", "4.4"),
        ];
        assert_eq!(told, expected.map(|(tier, geo, price)| (tier, geo, price.to_owned())));
        let fine = PriceFactors { tiers: [(Tier::Flex, dec!(0.0000001))].into(), ..PriceFactors::default() };
        assert_eq!(expand(&standard, &fine), Err(UnitPriceRefused::TooFine));
    }
}
