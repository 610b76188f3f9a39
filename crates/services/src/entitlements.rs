//! Entitlements: whether a user may use a feature now, and the exceptions of single customers.
//!
//! A check is advice: it changes nothing, and consumption decides again under a lock. It is answered from the cache of
//! this process where that has the facts (`EntitlementCache`), without a wait; cache misses are read together
//! (`cache_loader`). A caller that needs certainty asks for `Consistency::Strong`, which reads Postgres.

use std::sync::Arc;

use domain::changes::Change;
use domain::entitlements::{Decision, Entitlement, FeatureOverride, decide};
use domain::features::FeatureId;
use domain::identity::UsageSubject;
use domain::users::UserId;
use ports::changes::ChangeListener;
use ports::entitlements::{CachedDecision, EntitlementCache, Meter, MeterMissing, NamedEntitlement};
use ports::store::{Scope, Store, StoreError};
use thiserror::Error;

use crate::cache_loader::CacheLoader;
use crate::conflicts::{may_conflict, retry_conflicts};

#[derive(Debug, Error)]
pub enum EntitlementError {
    #[error("there is no such user")]
    UnknownUser,
    #[error("there is no feature `{0}`")]
    UnknownFeature(FeatureId),
    #[error("there is no override of the feature `{0}` for this user")]
    NoOverride(FeatureId),
    #[error(transparent)]
    Store(#[from] StoreError),
}
may_conflict!(EntitlementError);

pub struct EntitlementService {
    store: Arc<dyn Store>,
    cache: Arc<dyn EntitlementCache>,
    changes: Arc<dyn ChangeListener>,
    cache_loader: Arc<CacheLoader>,
}

impl EntitlementService {
    pub fn new(
        store: Arc<dyn Store>,
        cache: Arc<dyn EntitlementCache>,
        changes: Arc<dyn ChangeListener>,
        cache_loader: Arc<CacheLoader>,
    ) -> Self {
        Self { store, cache, changes, cache_loader }
    }

    /// Whether `amount` more of the feature may be used, by facts that are at most a second behind the database. It
    /// waits only for facts that are not cached, for fetches in other tasks: a caller that stops waiting interrupts
    /// nothing.
    pub async fn check(
        &self,
        subject: UsageSubject,
        feature_id: &FeatureId,
        amount: i64,
    ) -> Result<Decision, EntitlementError> {
        let meter = Meter { user_id: subject.user_id(), feature_id: feature_id.clone() };
        let entitlement = match self.cache.recall(&meter) {
            CachedDecision::Whole(entitlement) => entitlement,
            CachedDecision::Facts(facts) => self.recounted(meter, facts).await?,
            CachedDecision::Nothing => self.standing(meter).await?,
        };
        Ok(decide(&entitlement, amount))
    }

    /// The same by the current rows of Postgres, in a transaction of its own.
    pub async fn check_strongly(
        &self,
        subject: UsageSubject,
        feature_id: &FeatureId,
        amount: i64,
    ) -> Result<Decision, EntitlementError> {
        let facts = read(&*self.store, subject.user_id(), feature_id).await?;
        Ok(decide(&facts.entitlement, amount))
    }

    async fn recounted(&self, meter: Meter, facts: Entitlement) -> Result<Entitlement, EntitlementError> {
        match self.cache_loader.count(meter.clone(), facts.period).await? {
            Some(count) => Ok(facts.counted(&count)),
            // The user was deleted meanwhile.
            None => self.standing(meter).await,
        }
    }

    async fn standing(&self, meter: Meter) -> Result<Entitlement, EntitlementError> {
        let feature_id = meter.feature_id.clone();
        let standing = self.cache_loader.standing(meter).await?.map_err(|missing| named(missing, &feature_id))?;
        Ok(standing.entitlement)
    }

    pub async fn list_overrides(&self, user_id: UserId) -> Result<Vec<FeatureOverride>, EntitlementError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        if work.users().find_role(user_id).await?.is_none() {
            return Err(EntitlementError::UnknownUser);
        }
        let overrides = work.entitlements().list_overrides(user_id).await?;
        work.commit().await?;
        Ok(overrides)
    }

    /// Sets one customer's exception, in place of any other for the feature.
    pub async fn grant_override(&self, actor: UserId, exception: &FeatureOverride) -> Result<(), EntitlementError> {
        let scope = Scope::Service { actor: Some(actor), reason: exception.reason.clone() };
        retry_conflicts::<_, EntitlementError, _>(async || {
            let mut work = self.store.begin(scope.clone()).await?;
            if work.users().find_role(exception.user_id).await?.is_none() {
                return Err(EntitlementError::UnknownUser);
            }
            if work.features().find(&exception.feature_id).await?.is_none() {
                return Err(EntitlementError::UnknownFeature(exception.feature_id.clone()));
            }
            work.entitlements().save_override(exception).await?;
            Ok(work.commit().await?)
        })
        .await?;
        self.changes.invalidate(Change::User(exception.user_id));
        Ok(())
    }

    pub async fn revoke_override(
        &self,
        actor: UserId,
        user_id: UserId,
        feature_id: &FeatureId,
    ) -> Result<(), EntitlementError> {
        retry_conflicts::<_, EntitlementError, _>(async || {
            let mut work = self.store.begin(Scope::on_order_of(actor)).await?;
            if !work.entitlements().delete_override(user_id, feature_id).await? {
                return Err(EntitlementError::NoOverride(feature_id.clone()));
            }
            Ok(work.commit().await?)
        })
        .await?;
        self.changes.invalidate(Change::User(user_id));
        Ok(())
    }
}

/// The facts of one feature for one user, in a transaction of their own. The service reads them, not the user: a
/// feature that is switched off is hidden from users, and must still differ from one that never existed.
pub(crate) async fn read(
    store: &dyn Store,
    user_id: UserId,
    feature_id: &FeatureId,
) -> Result<NamedEntitlement, EntitlementError> {
    let mut work = store.begin(Scope::SERVICE).await?;
    let found = work.entitlements().find(user_id, feature_id).await?;
    work.commit().await?;
    found.map_err(|missing| named(missing, feature_id))
}

fn named(missing: MeterMissing, feature_id: &FeatureId) -> EntitlementError {
    match missing {
        MeterMissing::User => EntitlementError::UnknownUser,
        MeterMissing::Feature => EntitlementError::UnknownFeature(feature_id.clone()),
    }
}
