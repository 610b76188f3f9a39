//! Entitlements: may this user use this feature now? And the exceptions of single customers.
//!
//! A check is advice: it changes nothing, and consumption decides again under a lock. It is answered from the memory of
//! this process wherever that has the facts (`EntitlementCache`), and then nobody waits; what is missing is read together
//! with what others miss (`readings`). Whoever wants to be sure asks for `Consistency::Strong`, which asks Postgres.

use std::sync::Arc;

use domain::changes::Change;
use domain::entitlements::{Decision, Entitlement, FeatureOverride, decide};
use domain::features::FeatureId;
use domain::identity::Subject;
use domain::users::UserId;
use ports::changes::ChangeListener;
use ports::entitlements::{EntitlementCache, Meter, Missing, NamedEntitlement, Recalled};
use ports::store::{Scope, Store, StoreError};
use thiserror::Error;

use crate::conflicts::{may_conflict, retry_conflicts};
use crate::readings::Readings;

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
    readings: Arc<Readings>,
}

impl EntitlementService {
    pub fn new(
        store: Arc<dyn Store>,
        cache: Arc<dyn EntitlementCache>,
        changes: Arc<dyn ChangeListener>,
        readings: Arc<Readings>,
    ) -> Self {
        Self { store, cache, changes, readings }
    }

    /// Whether `amount` more of the feature may be used, by facts that are at most a second behind the database. It never
    /// waits where the memory has them, and else for fetches that run elsewhere: whoever stops waiting cuts nothing short.
    pub async fn check(
        &self,
        subject: Subject,
        feature_id: &FeatureId,
        amount: i64,
    ) -> Result<Decision, EntitlementError> {
        let meter = Meter { user_id: subject.user_id(), feature_id: feature_id.clone() };
        let entitlement = match self.cache.recall(&meter) {
            Recalled::Whole(entitlement) => entitlement,
            Recalled::Facts(facts) => self.recounted(meter, facts).await?,
            Recalled::Nothing => self.standing(meter).await?,
        };
        Ok(decide(&entitlement, amount))
    }

    /// The same as Postgres has it now, in a transaction of its own.
    pub async fn check_strongly(
        &self,
        subject: Subject,
        feature_id: &FeatureId,
        amount: i64,
    ) -> Result<Decision, EntitlementError> {
        let facts = read(&*self.store, subject.user_id(), feature_id).await?;
        Ok(decide(&facts.entitlement, amount))
    }

    async fn recounted(&self, meter: Meter, facts: Entitlement) -> Result<Entitlement, EntitlementError> {
        match self.readings.count(meter.clone(), facts.period).await? {
            Some(count) => Ok(facts.counted(&count)),
            // The user went away meanwhile.
            None => self.standing(meter).await,
        }
    }

    async fn standing(&self, meter: Meter) -> Result<Entitlement, EntitlementError> {
        let feature_id = meter.feature_id.clone();
        let standing = self.readings.standing(meter).await?.map_err(|missing| named(missing, &feature_id))?;
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
        self.changes.heard(Change::User(exception.user_id));
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
        self.changes.heard(Change::User(user_id));
        Ok(())
    }
}

/// The facts of one feature for one user, in a transaction of their own. The service reads them, not the user: a
/// feature that is switched off is hidden from users, and must still be told from one that never was.
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

fn named(missing: Missing, feature_id: &FeatureId) -> EntitlementError {
    match missing {
        Missing::User => EntitlementError::UnknownUser,
        Missing::Feature => EntitlementError::UnknownFeature(feature_id.clone()),
    }
}
