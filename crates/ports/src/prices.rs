//! Prices: the rows of `model_prices`, which are added and closed and never edited otherwise.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::ai::{ModelId, Provider};
use domain::prices::{ModelPrice, PriceId};

use crate::store::{Page, StoreError};

/// How many prices there can be, those that are over included; more cannot be made.
pub const PRICES_MAX: u64 = 50_000;

/// Which prices are asked for; `None` asks for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriceFilter {
    pub provider: Option<Provider>,
    pub model: Option<ModelId>,
    /// Those in force now only, or only the others: planned or over.
    pub in_force: Option<bool>,
}

/// Rows whose kind or tier this program does not know, since a later one wrote them, are passed over everywhere.
#[async_trait]
pub trait PriceRepository: Send {
    /// Lets nobody else write prices until the transaction ends, and tells the database's time after that. Readers go on.
    async fn lock(&mut self) -> Result<DateTime<Utc>, StoreError>;
    /// What a call can be priced by that is under way or to come: prices in force and planned, and those that ended
    /// within a day. Bounded by `PRICES_MAX`.
    async fn list_usable(&mut self) -> Result<Vec<ModelPrice>, StoreError>;
    /// Every price that there ever was. Bounded by `PRICES_MAX`.
    async fn list_every(&mut self) -> Result<Vec<ModelPrice>, StoreError>;
    /// How many there are, those that are over included.
    async fn count(&mut self) -> Result<u64, StoreError>;
    /// The latest to come into force first, for reading page by page.
    async fn list(
        &mut self,
        filter: &PriceFilter,
        page: &Page<(DateTime<Utc>, PriceId)>,
    ) -> Result<Vec<ModelPrice>, StoreError>;
    /// `Constraint { model_prices_no_overlap }` where another price holds for the same at the same time.
    async fn insert(&mut self, prices: &[ModelPrice]) -> Result<(), StoreError>;
    /// Ends prices at this time; says how many there were to end.
    async fn close(&mut self, prices: &[PriceId], at: DateTime<Utc>) -> Result<u64, StoreError>;
}
