//! Features: the other half of the catalogue, readable by all and changed by administrators.

use std::sync::Arc;

use domain::changes::Change;
use domain::features::{Feature, FeatureChanges, FeatureDraft, FeatureId};
use domain::users::UserId;
use ports::changes::ChangeListener;
use ports::features::FEATURES_MAX;
use ports::store::{Scope, Store, StoreError};

use crate::conflicts::retry_conflicts;
use crate::idempotency::{IdempotencyService, IdempotentAnswer};
use crate::plans::CatalogueError;

pub struct FeatureService {
    pub store: Arc<dyn Store>,
    pub changes: Arc<dyn ChangeListener>,
}

impl FeatureService {
    /// The active features; administrators see the others too.
    pub async fn list(&self, to_admin: bool) -> Result<Vec<Feature>, CatalogueError> {
        let mut work = self.store.begin(reader(to_admin)).await?;
        let features = work.features().list(!to_admin).await?;
        work.commit().await?;
        Ok(features)
    }

    pub async fn find(&self, id: &FeatureId, to_admin: bool) -> Result<Feature, CatalogueError> {
        let mut work = self.store.begin(reader(to_admin)).await?;
        let found = work.features().find(id).await?.filter(|feature| to_admin || feature.is_active);
        work.commit().await?;
        found.ok_or_else(|| CatalogueError::UnknownFeature(id.clone()))
    }

    pub async fn create(
        &self,
        actor: UserId,
        draft: &FeatureDraft,
        once: IdempotencyService<Feature>,
    ) -> Result<IdempotentAnswer, CatalogueError> {
        let performed = retry_conflicts::<_, CatalogueError, _>(async || {
            let mut work = self.store.begin(Scope::on_order_of(actor)).await?;
            if let Some(replayed) = once.claim(&mut *work).await?? {
                return Ok(replayed);
            }
            if work.features().list(false).await?.len() as u64 >= FEATURES_MAX {
                return Err(CatalogueError::Full(FEATURES_MAX));
            }
            let feature = work.features().insert(draft).await.map_err(|error| match error {
                StoreError::Constraint { constraint } if constraint == "features_pkey" => {
                    CatalogueError::IdTaken(draft.id.to_string())
                }
                other => CatalogueError::Store(other),
            })?;
            let performed = once.record(&mut *work, &feature).await?;
            work.commit().await?;
            Ok(performed)
        })
        .await?;
        self.changes.invalidate(Change::Catalogue);
        Ok(performed)
    }

    pub async fn change(
        &self,
        actor: UserId,
        id: &FeatureId,
        changes: &FeatureChanges,
    ) -> Result<Feature, CatalogueError> {
        let unknown = || CatalogueError::UnknownFeature(id.clone());
        let feature = retry_conflicts::<_, CatalogueError, _>(async || {
            let mut work = self.store.begin(Scope::on_order_of(actor)).await?;
            work.features().find(id).await?.ok_or_else(unknown)?;
            work.features().save(id, changes).await?;
            let feature = work.features().find(id).await?.ok_or_else(unknown)?;
            work.commit().await?;
            Ok(feature)
        })
        .await?;
        self.changes.invalidate(Change::Catalogue);
        Ok(feature)
    }

    /// Deletes a feature that no plan grants and that was never used; any other is deactivated instead.
    pub async fn delete(&self, actor: UserId, id: &FeatureId) -> Result<(), CatalogueError> {
        retry_conflicts::<_, CatalogueError, _>(async || {
            let mut work = self.store.begin(Scope::on_order_of(actor)).await?;
            if work.features().find(id).await?.is_none() {
                return Err(CatalogueError::UnknownFeature(id.clone()));
            }
            let references = work.features().count_references(id).await?;
            if references > 0 {
                return Err(CatalogueError::FeatureInUse { references });
            }
            work.features().delete(id).await?;
            Ok(work.commit().await?)
        })
        .await?;
        self.changes.invalidate(Change::Catalogue);
        Ok(())
    }
}

fn reader(to_admin: bool) -> Scope {
    if to_admin { Scope::SERVICE } else { Scope::Anonymous }
}
