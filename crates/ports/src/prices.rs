//! Prices: the rows of `model_prices`, which are added and closed and never edited otherwise.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::ai::{ModelId, ProviderId};
use domain::prices::{ModelPrice, PriceId};

use crate::store::{Page, StoreError};

/// How many prices there can be, those that have ended included.
pub const PRICES_MAX: u64 = 50_000;

/// The requested prices; `None` is all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriceFilter {
    pub provider: Option<ProviderId>,
    pub model: Option<ModelId>,
    /// Those in force now only, or only the others: planned or ended.
    pub in_force: Option<bool>,
}

/// Rows whose kind or tier this release does not know, since a later one wrote them, are skipped everywhere.
#[async_trait]
pub trait PriceRepository: Send {
    /// Locks out other writers of prices until the transaction ends, and returns the database's time after that.
    /// Readers go on.
    async fn lock(&mut self) -> Result<DateTime<Utc>, StoreError>;
    /// The prices for calls that are under way or to come: those in force and planned, and those that ended within a
    /// day. Bounded by `PRICES_MAX`.
    async fn list_usable(&mut self) -> Result<Vec<ModelPrice>, StoreError>;
    /// Every price that ever existed. Bounded by `PRICES_MAX`.
    async fn list_every(&mut self) -> Result<Vec<ModelPrice>, StoreError>;
    /// How many there are, those that have ended included.
    async fn count(&mut self) -> Result<u64, StoreError>;
    /// The latest to come into force first, a page at a time.
    async fn list(
        &mut self,
        filter: &PriceFilter,
        page: &Page<(DateTime<Utc>, PriceId)>,
    ) -> Result<Vec<ModelPrice>, StoreError>;
    /// `Constraint { model_prices_no_overlap }` where another price applies to the same at the same time.
    async fn insert(&mut self, prices: &[ModelPrice]) -> Result<(), StoreError>;
    /// Adds names that the tables refuse otherwise; a name that is there already stays.
    async fn register_providers(&mut self, providers: &[ProviderId]) -> Result<(), StoreError>;
    /// Ends prices at this time; returns how many were ended.
    async fn close(&mut self, prices: &[PriceId], at: DateTime<Utc>) -> Result<u64, StoreError>;
}
