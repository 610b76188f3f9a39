//! How prices change. An operator's new price closes the previous one. A new edition of the catalogue closes the prices
//! that it changes. A price that was in force is never edited, except that its end is set, and no end is set in the
//! past.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, SubsecRound, Utc};
use thiserror::Error;
use uuid::Uuid;

use super::catalogue::ModelCatalogue;
use super::list::{ModelPrice, PriceId, PriceKey, PriceSource};
use super::money::UnitPrice;

/// Postgres stores times in microseconds.
const SUBSECOND_DIGITS: u16 = 6;

/// A price as an operator submits it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceDraft {
    pub key: PriceKey,
    pub price: UnitPrice,
    pub version: String,
    /// `None` is now.
    pub valid_from: Option<DateTime<Utc>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PriceRefused {
    #[error("what was used by then is billed already: a price holds from now on, or later")]
    InThePast,
    #[error("there is a price for this from the same moment on")]
    MomentTaken,
}

/// A price with its place among the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedPrice {
    pub price: ModelPrice,
    /// The price that ends where this one begins.
    pub closes: Option<PriceId>,
}

/// Places an operator's price among the existing ones of its key; rows of other keys are ignored. It is valid until the
/// next price that is already planned.
pub fn place(
    id: PriceId,
    draft: &PriceDraft,
    existing: &[ModelPrice],
    now: DateTime<Utc>,
) -> Result<PlacedPrice, PriceRefused> {
    let from = draft.valid_from.map_or(now, |from| from.trunc_subsecs(SUBSECOND_DIGITS));
    if from < now {
        return Err(PriceRefused::InThePast);
    }
    let same_key = || existing.iter().filter(|row| row.key == draft.key);
    if same_key().any(|row| row.valid_from == from) {
        return Err(PriceRefused::MomentTaken);
    }
    let price = ModelPrice {
        id,
        key: draft.key.clone(),
        price: draft.price,
        version: draft.version.clone(),
        source: PriceSource::Operator,
        valid_from: from,
        valid_to: same_key().map(|row| row.valid_from).filter(|start| *start > from).min(),
    };
    Ok(PlacedPrice { price, closes: same_key().find(|row| row.is_in_force(from)).map(|row| row.id) })
}

/// What an edition of the catalogue changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogueChange {
    /// Rows that end now and rows to add. Both are empty if the edition is already in force.
    Apply { close: Vec<PriceId>, add: Vec<ModelPrice> },
    /// A later edition was loaded before: this is an older release, and it must not restore old prices.
    Outdated { loaded: String },
}

/// Compares the catalogue with all prices that ever existed.
///
/// A key with an operator's price in force or planned is left unchanged. The first price of a key is valid from the
/// Unix epoch, so a slow clock cannot put a call before it.
pub fn refresh(
    catalogue: &ModelCatalogue,
    existing: &[ModelPrice],
    now: DateTime<Utc>,
    mut new_id: impl FnMut() -> Uuid,
) -> CatalogueChange {
    let ours = || existing.iter().filter(|row| row.source == PriceSource::Catalogue);
    let newest = ours().map(|row| row.version.as_str()).max().unwrap_or_default();
    if newest > catalogue.version.as_str() {
        return CatalogueChange::Outdated { loaded: newest.to_owned() };
    }
    let lasts = |row: &&ModelPrice| row.valid_to.is_none_or(|end| end > now);
    let operators: HashSet<&PriceKey> =
        existing.iter().filter(lasts).filter(|row| row.source == PriceSource::Operator).map(|row| &row.key).collect();
    let known: HashSet<&PriceKey> = existing.iter().map(|row| &row.key).collect();
    let open: HashMap<&PriceKey, &ModelPrice> = ours().filter(lasts).map(|row| (&row.key, row)).collect();
    let mut kept: HashSet<PriceId> = HashSet::new();
    let mut add = Vec::new();
    for wanted in catalogue.prices().filter(|wanted| !operators.contains(&wanted.key)) {
        if wanted.until.is_some_and(|until| until <= now) {
            continue;
        }
        match open.get(&wanted.key) {
            Some(row) if row.price == wanted.price && row.valid_to == wanted.until => drop(kept.insert(row.id)),
            _ => add.push(ModelPrice {
                id: PriceId(new_id()),
                key: wanted.key.clone(),
                price: wanted.price,
                version: catalogue.version.to_string(),
                source: PriceSource::Catalogue,
                valid_from: if known.contains(&wanted.key) { now } else { DateTime::UNIX_EPOCH },
                valid_to: wanted.until,
            }),
        }
    }
    let is_left = |row: &&&ModelPrice| !kept.contains(&row.id) && !operators.contains(&row.key);
    let mut close: Vec<PriceId> = open.values().filter(is_left).map(|row| row.id).collect();
    close.sort();
    CatalogueChange::Apply { close, add }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use rust_decimal::{Decimal, dec};

    use super::super::catalogue::{CatalogueModel, CataloguePrice, CatalogueVersion, ModelPurpose};
    use super::super::testing::{at, key, model, row, usd};
    use super::*;
    use crate::ai::ProviderId;

    fn draft(from: Option<DateTime<Utc>>) -> PriceDraft {
        PriceDraft { key: key("m"), price: usd(dec!(9)), version: "own".into(), valid_from: from }
    }

    fn id(number: u128) -> PriceId {
        PriceId(Uuid::from_u128(number))
    }

    /// A row of the model `m` that is valid between these seconds.
    fn lasting(number: u128, from: i64, to: Option<i64>, source: PriceSource) -> ModelPrice {
        let row = row("m", dec!(5));
        ModelPrice {
            id: id(number),
            source,
            valid_from: at(from),
            valid_to: to.map(at),
            version: "2026-11-12".into(),
            ..row
        }
    }

    #[test]
    fn a_new_price_ends_the_one_before_and_holds_until_the_next() {
        let catalogue = PriceSource::Catalogue;
        let existing = [lasting(1, 0, Some(50), catalogue), lasting(2, 50, None, catalogue), row("other", dec!(1))];
        let placed = place(id(7), &draft(None), &existing, at(10)).unwrap();
        assert_eq!(
            (placed.closes, placed.price.valid_from, placed.price.valid_to),
            (Some(id(1)), at(10), Some(at(50)))
        );
        assert_eq!((placed.price.source, placed.price.price), (PriceSource::Operator, usd(dec!(9))));
        let placed = place(id(7), &draft(Some(at(70))), &existing, at(10)).unwrap();
        assert_eq!((placed.closes, placed.price.valid_from, placed.price.valid_to), (Some(id(2)), at(70), None));
        let placed = place(id(7), &draft(None), &[], at(10)).unwrap();
        assert_eq!((placed.closes, placed.price.valid_to), (None, None));
    }

    #[test]
    fn a_price_begins_neither_in_the_past_nor_where_another_does() {
        let existing = [lasting(1, 20, None, PriceSource::Operator)];
        assert_eq!(place(id(7), &draft(Some(at(9))), &existing, at(10)), Err(PriceRefused::InThePast));
        let within = at(20) + TimeDelta::nanoseconds(999);
        assert_eq!(place(id(7), &draft(Some(within)), &existing, at(10)), Err(PriceRefused::MomentTaken));
    }

    fn catalogue(version: &str, price: Decimal, until: Option<DateTime<Utc>>) -> ModelCatalogue {
        let price = CataloguePrice { key: key("m"), price: usd(price), until };
        let of = CatalogueModel {
            provider: ProviderId::CLAUDE,
            id: model("m"),
            aliases: Vec::new(),
            purpose: ModelPurpose::Chat,
            max_input_tokens: None,
            max_output_tokens: None,
            until,
            prices: vec![price],
        };
        ModelCatalogue::try_new(CatalogueVersion::parse(version).unwrap(), vec![of]).unwrap()
    }

    fn refreshed(catalogue: &ModelCatalogue, existing: &[ModelPrice]) -> (Vec<PriceId>, Vec<ModelPrice>) {
        match refresh(catalogue, existing, at(100), || Uuid::from_u128(7)) {
            CatalogueChange::Apply { close, add } => (close, add),
            outdated @ CatalogueChange::Outdated { .. } => panic!("{outdated:?}"),
        }
    }

    #[test]
    fn a_first_price_holds_since_ever_and_a_second_load_changes_nothing() {
        let edition = catalogue("2026-11-12", dec!(5), Some(at(900)));
        let (close, add) = refreshed(&edition, &[]);
        assert!(close.is_empty());
        assert_eq!((add[0].valid_from, add[0].valid_to), (DateTime::UNIX_EPOCH, Some(at(900))));
        assert_eq!((add[0].version.as_str(), add[0].source, add[0].id), ("2026-11-12", PriceSource::Catalogue, id(7)));
        assert_eq!(refreshed(&edition, &add), (vec![], vec![]));
        let renamed = catalogue("2026-12-01", dec!(5), Some(at(900)));
        assert_eq!(refreshed(&renamed, &add), (vec![], vec![]), "a new edition with the same price");
    }

    #[test]
    fn what_changed_is_closed_and_added_and_what_is_gone_is_closed() {
        let old = [lasting(1, 0, None, PriceSource::Catalogue)];
        for edition in [catalogue("2026-11-12", dec!(6), None), catalogue("2026-11-13", dec!(5), Some(at(900)))] {
            let (close, add) = refreshed(&edition, &old);
            assert_eq!((close, add.len(), add[0].valid_from), (vec![id(1)], 1, at(100)));
        }
        let gone = ModelCatalogue::try_new(CatalogueVersion::parse("2026-11-13").unwrap(), vec![]).unwrap();
        assert_eq!(refreshed(&gone, &old), (vec![id(1)], vec![]));
        // A price that ended by itself is neither closed nor restored.
        let over = [lasting(1, 0, Some(90), PriceSource::Catalogue)];
        assert_eq!(refreshed(&catalogue("2026-11-12", dec!(5), Some(at(90))), &over), (vec![], vec![]));
        let back = refreshed(&catalogue("2026-11-12", dec!(5), None), &over);
        assert_eq!((back.0.len(), back.1[0].valid_from), (0, at(100)), "never over a time that is billed");
    }

    #[test]
    fn an_operators_price_is_left_alone() {
        let edition = catalogue("2026-12-01", dec!(6), None);
        for own in [lasting(2, 50, None, PriceSource::Operator), lasting(2, 500, None, PriceSource::Operator)] {
            let before = lasting(1, 0, Some(own.valid_from.timestamp() - at(0).timestamp()), PriceSource::Catalogue);
            assert_eq!(refreshed(&edition, &[before, own]), (vec![], vec![]));
        }
        let ended = [lasting(2, 50, Some(60), PriceSource::Operator)];
        assert_eq!(refreshed(&edition, &ended).1[0].valid_from, at(100), "the operator's time is over");
    }

    #[test]
    fn an_older_edition_changes_nothing() {
        let loaded = ModelPrice { version: "2026-12-01".into(), ..lasting(1, 0, None, PriceSource::Catalogue) };
        let change = refresh(&catalogue("2026-11-12", dec!(9), None), &[loaded], at(100), || Uuid::from_u128(7));
        assert_eq!(change, CatalogueChange::Outdated { loaded: "2026-12-01".into() });
    }
}
