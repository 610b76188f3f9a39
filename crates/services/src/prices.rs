//! Prices: the list that calls are priced by (from a snapshot of at most a minute), the models on offer, and the
//! administrators' changes. The catalogue of the settings is applied to the rows at each start.
//!
//! Promises: a price in force is ended, never edited, and only from now on; a planned one applies from its moment on in
//! every process, because the snapshot holds it beforehand. One that applies at once is used at once by the process
//! that got the request, by the others within a minute.
//!
//! Costs: a read is one statement a minute. A change is BEGIN, the lock, two reads, two writes, COMMIT; the lock delays
//! other changes of prices, and no reader.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::ai::{ModelId, ProviderId, ProviderProfile, ProviderProfiles};
use domain::prices::{
    CatalogueChange, CatalogueModel, ModelCatalogue, ModelPrice, ModelPurpose, PriceDraft, PriceId, PriceList,
    PriceRefused, place, refresh,
};
use domain::users::UserId;
use ports::clock::Clock;
use ports::prices::{PRICES_MAX, PriceFilter};
use ports::randomness::Randomness;
use ports::store::{Page, Scope, Store, StoreError};
use thiserror::Error;
use tracing::{info, warn};

use crate::conflicts::{may_conflict, retry_conflicts};
use crate::idempotency::{IdempotencyService, IdempotentAnswer, KeyConflict};
use crate::snapshots::Snapshot;

/// How old the list that prices a call may be.
pub const LIST_MAX_AGE: Duration = Duration::from_mins(1);

/// The schema's constraint against two prices at one time.
const NO_OVERLAP: &str = "model_prices_no_overlap";

#[derive(Debug, Error)]
pub enum PriceError {
    #[error(transparent)]
    Refused(#[from] PriceRefused),
    #[error("there are {0} prices, those that are over included, and no more are kept")]
    Full(u64),
    #[error(transparent)]
    Key(#[from] KeyConflict),
    #[error(transparent)]
    Store(#[from] StoreError),
}
may_conflict!(PriceError);

/// The result of applying the catalogue to the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogueLoad {
    InForce {
        closed: usize,
        added: usize,
    },
    /// A later edition was loaded before; nothing was changed.
    Outdated {
        loaded: String,
    },
    /// There is no room for what it adds; nothing was changed.
    Full,
}

/// A model with its prices in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PricedModel {
    pub model: CatalogueModel,
    /// The name to call it by: its id, with its provider's name before it where the id alone means another's model.
    pub name: String,
    pub prices: Vec<ModelPrice>,
}

/// What a call needs to know of its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfferedModel {
    pub provider: ProviderProfile,
    pub purpose: ModelPurpose,
    pub max_input_tokens: Option<u64>,
    pub max_output_tokens: Option<u64>,
}

pub struct PriceService {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    randomness: Arc<dyn Randomness>,
    catalogue: ModelCatalogue,
    providers: ProviderProfiles,
    list: Snapshot<PriceList>,
}

impl PriceService {
    pub fn new(
        store: &Arc<dyn Store>,
        clock: &Arc<dyn Clock>,
        randomness: &Arc<dyn Randomness>,
        catalogue: ModelCatalogue,
        providers: ProviderProfiles,
    ) -> Self {
        let (store, clock, randomness) = (Arc::clone(store), Arc::clone(clock), Arc::clone(randomness));
        Self { store, clock, randomness, catalogue, providers, list: Snapshot::lasting(LIST_MAX_AGE) }
    }

    /// The models of the settings, priced or not.
    pub const fn catalogue(&self) -> &ModelCatalogue {
        &self.catalogue
    }

    /// The configured providers. Models of others are not on offer, even if they have prices.
    pub const fn providers(&self) -> &ProviderProfiles {
        &self.providers
    }

    /// The prices of all models with their validity.
    pub async fn current(&self) -> Result<Arc<PriceList>, StoreError> {
        self.list
            .get(async {
                let mut work = self.store.begin(Scope::SERVICE).await?;
                let prices = work.prices().list_usable().await?;
                work.commit().await?;
                Ok(PriceList::new(prices, self.catalogue.aliases()))
            })
            .await
    }

    /// The models that have prices now, in the order of provider and name. Of one that an administrator priced and the
    /// settings do not list, nothing else is known.
    pub async fn models(&self, provider: Option<ProviderId>) -> Result<Vec<PricedModel>, StoreError> {
        let (list, now) = (self.current().await?, self.clock.now());
        let mut models = Vec::new();
        let is_offered = |of: ProviderId| provider.is_none_or(|only| only == of) && self.providers.get(of).is_some();
        for (of, id) in list.priced_models(now).into_iter().filter(|(of, _)| is_offered(*of)) {
            let known = self.catalogue.models().iter().find(|model| model.provider == of && model.id == id);
            let is_first = self.offered(None, &id, &list, now).is_some_and(|offered| offered.provider.id == of);
            let name = if is_first { id.to_string() } else { format!("{of}/{id}") };
            let prices = list.rates(of, &id, now).rows().cloned().collect();
            let unknown = || CatalogueModel {
                provider: of,
                id: id.clone(),
                aliases: Vec::new(),
                purpose: ModelPurpose::Chat,
                max_input_tokens: None,
                max_output_tokens: None,
                until: None,
                prices: Vec::new(),
            };
            models.push(PricedModel { model: known.cloned().unwrap_or_else(unknown), name, prices });
        }
        Ok(models)
    }

    /// The model of this name: one of the catalogue, or another that has a price now. Of several providers, the first
    /// of the list has it. Every call needs it, so only the needed fields are copied.
    pub async fn find(&self, provider: Option<ProviderId>, name: &ModelId) -> Result<Option<OfferedModel>, StoreError> {
        if let Some(known) = self.of_catalogue(provider, name) {
            return Ok(Some(known));
        }
        Ok(self.offered(provider, name, &*self.current().await?, self.clock.now()))
    }

    fn offered(
        &self,
        provider: Option<ProviderId>,
        name: &ModelId,
        list: &PriceList,
        now: DateTime<Utc>,
    ) -> Option<OfferedModel> {
        self.of_catalogue(provider, name).or_else(|| {
            let provider = self.meant(provider).find(|of| list.is_priced(of.id, name, now))?;
            let purpose = ModelPurpose::Chat;
            Some(OfferedModel { provider, purpose, max_input_tokens: None, max_output_tokens: None })
        })
    }

    fn of_catalogue(&self, provider: Option<ProviderId>, name: &ModelId) -> Option<OfferedModel> {
        self.meant(provider).find_map(|provider| {
            let CatalogueModel { purpose, max_input_tokens, max_output_tokens, .. } =
                *self.catalogue.find(provider.id, name)?;
            Some(OfferedModel { provider, purpose, max_input_tokens, max_output_tokens })
        })
    }

    /// The named provider, or all of them.
    fn meant(&self, provider: Option<ProviderId>) -> impl Iterator<Item = ProviderProfile> + '_ {
        self.providers.iter().filter(move |of| provider.is_none_or(|only| only == of.id))
    }

    /// For administrators: every price, planned and past ones too.
    pub async fn list(
        &self,
        filter: &PriceFilter,
        after: Option<(DateTime<Utc>, PriceId)>,
        limit: u64,
    ) -> Result<Vec<ModelPrice>, PriceError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let prices = work.prices().list(filter, &Page { after, limit }).await?;
        work.commit().await?;
        Ok(prices)
    }

    /// Adds an administrator's price and ends the one before it when it begins.
    pub async fn add(
        &self,
        actor: UserId,
        draft: &PriceDraft,
        once: IdempotencyService<ModelPrice>,
    ) -> Result<IdempotentAnswer, PriceError> {
        let performed = retry_conflicts::<_, PriceError, _>(async || {
            let mut work = self.store.begin(Scope::on_order_of(actor)).await?;
            if let Some(replayed) = once.claim(&mut *work).await?? {
                // Released before the answer is sent, so that the next request with this key does not find it taken.
                work.commit().await?;
                return Ok(replayed);
            }
            let now = work.prices().lock().await?;
            if work.prices().count().await? >= PRICES_MAX {
                return Err(PriceError::Full(PRICES_MAX));
            }
            let existing = work.prices().list_usable().await?;
            let placed = place(PriceId(self.randomness.new_id()), draft, &existing, now)?;
            if let Some(before) = placed.closes {
                work.prices().close(&[before], placed.price.valid_from).await?;
            }
            work.prices().insert(std::slice::from_ref(&placed.price)).await.map_err(|error| match error {
                StoreError::Constraint { constraint } if constraint == NO_OVERLAP => PriceRefused::MomentTaken.into(),
                other => PriceError::Store(other),
            })?;
            let performed = once.record(&mut *work, &placed.price).await?;
            work.commit().await?;
            Ok(performed)
        })
        .await?;
        self.list.forget().await;
        Ok(performed)
    }

    /// Makes the names of the configured providers known to the tables, which refuse others.
    pub async fn register_providers(&self) -> Result<(), StoreError> {
        let providers: Vec<ProviderId> = self.providers.ids().collect();
        let reason = Some("the providers of the settings".to_owned());
        let mut work = self.store.begin(Scope::Service { actor: None, reason }).await?;
        work.prices().register_providers(&providers).await?;
        work.commit().await
    }

    /// Applies the catalogue to the rows: prices that differ are ended and added, an operator's stay. Repeating it
    /// changes nothing, and two processes at the same time wait for each other.
    pub async fn keep_catalogue(&self) -> Result<CatalogueLoad, StoreError> {
        let load = retry_conflicts::<_, StoreError, _>(|| self.lay_catalogue()).await?;
        self.list.forget().await;
        match &load {
            CatalogueLoad::InForce { closed: 0, added: 0 } => {}
            CatalogueLoad::InForce { closed, added } => info!(closed, added, "the prices of models.toml are in force"),
            CatalogueLoad::Outdated { loaded } => {
                let version = self.catalogue.version.as_str();
                warn!(%loaded, %version, "models.toml is older than the prices in the database, which stay");
            }
            CatalogueLoad::Full => warn!("there is no room for the prices of models.toml; those in the database stay"),
        }
        Ok(load)
    }

    async fn lay_catalogue(&self) -> Result<CatalogueLoad, StoreError> {
        let reason = Some(format!("models.toml {}", self.catalogue.version));
        let mut work = self.store.begin(Scope::Service { actor: None, reason }).await?;
        let now = work.prices().lock().await?;
        let existing = work.prices().list_every().await?;
        let (close, add) = match refresh(&self.catalogue, &existing, now, || self.randomness.new_id()) {
            CatalogueChange::Outdated { loaded } => return Ok(CatalogueLoad::Outdated { loaded }),
            CatalogueChange::Apply { close, add } => (close, add),
        };
        if !add.is_empty() && work.prices().count().await? + add.len() as u64 > PRICES_MAX {
            return Ok(CatalogueLoad::Full);
        }
        if !close.is_empty() {
            work.prices().close(&close, now).await?;
        }
        if !add.is_empty() {
            work.prices().insert(&add).await?;
        }
        work.commit().await?;
        Ok(CatalogueLoad::InForce { closed: close.len(), added: add.len() })
    }
}
