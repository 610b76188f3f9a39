//! Entitlements: may this user use this feature now? And the exceptions of single customers.
//!
//! A check is advice: it reads the facts in one statement and changes nothing. Consumption decides again under a lock.

use std::sync::Arc;

use domain::entitlements::{Decision, FeatureOverride, decide};
use domain::features::FeatureId;
use domain::identity::Subject;
use domain::users::UserId;
use ports::entitlements::{Missing, NamedEntitlement};
use ports::store::{Scope, Store, StoreError};
use thiserror::Error;

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
    pub store: Arc<dyn Store>,
}

impl EntitlementService {
    /// Whether `amount` more of the feature may be used now.
    pub async fn check(
        &self,
        subject: Subject,
        feature_id: &FeatureId,
        amount: i64,
    ) -> Result<Decision, EntitlementError> {
        let facts = read(&*self.store, subject.user_id(), feature_id).await?;
        Ok(decide(&facts.entitlement, amount))
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
        .await
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
        .await
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
    found.map_err(|missing| match missing {
        Missing::User => EntitlementError::UnknownUser,
        Missing::Feature => EntitlementError::UnknownFeature(feature_id.clone()),
    })
}
