//! Plans: the catalogue, readable by all (from a snapshot of at most a second) and changed by administrators.
//!
//! A user's own plan and its changes are in `subscriptions`, what it allows in `entitlements`; the five methods that
//! the seeds give `PlanService` are spread over the three rooms.

use std::sync::Arc;

use domain::changes::Change;
use domain::features::FeatureId;
use domain::plans::{Plan, PlanChanges, PlanDraft, PlanFeature, PlanId, PlanKept, may_change, may_delete};
use domain::subscriptions::BillingMode;
use domain::users::UserId;
use ports::changes::ChangeListener;
use ports::plans::PLANS_MAX;
use ports::store::{Scope, Store, StoreError, UnitOfWork};
use thiserror::Error;

use crate::conflicts::{may_conflict, retry_conflicts};
use crate::idempotency::{IdempotencyService, IdempotentAnswer, KeyConflict};
use crate::postponed::PostponedItems;
use crate::snapshots::Snapshot;

#[derive(Debug, Error)]
pub enum CatalogueError {
    #[error("there is no plan `{0}`")]
    UnknownPlan(PlanId),
    #[error("there is no feature `{0}`")]
    UnknownFeature(FeatureId),
    #[error("the plan `{plan_id}` says nothing of the feature `{feature_id}`")]
    NotInPlan { plan_id: PlanId, feature_id: FeatureId },
    #[error("the id `{0}` is taken")]
    IdTaken(String),
    #[error("the catalogue holds at most {0} of them")]
    Full(u64),
    #[error(transparent)]
    Kept(#[from] PlanKept),
    #[error("the feature is in {references} plans, overrides or counters; deactivate it instead")]
    FeatureInUse { references: i64 },
    #[error(transparent)]
    Key(#[from] KeyConflict),
    #[error(transparent)]
    Store(#[from] StoreError),
}
may_conflict!(CatalogueError);

/// One change of a plan by an administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanEdit {
    Describe(PlanChanges),
    /// Sets what the plan grants of a feature.
    Grant(PlanFeature),
    /// Takes a feature out of the plan.
    Revoke(FeatureId),
}

pub struct PlanService {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) billing_mode: BillingMode,
    pub(crate) changes: Arc<dyn ChangeListener>,
    /// Users whose due plan change could not be applied.
    pub(crate) postponed: PostponedItems<UserId>,
    catalogue: Snapshot<Vec<Plan>>,
}

impl PlanService {
    pub fn new(store: Arc<dyn Store>, billing_mode: BillingMode, changes: Arc<dyn ChangeListener>) -> Self {
        Self { store, billing_mode, changes, postponed: PostponedItems::default(), catalogue: Snapshot::default() }
    }

    /// A change that was made here is visible here at once.
    async fn forget_catalogue(&self) {
        self.changes.invalidate(Change::Catalogue);
        self.catalogue.forget().await;
    }

    /// The active plans with their features and limits, cheapest first.
    pub async fn available_plans(&self) -> Result<Arc<Vec<Plan>>, StoreError> {
        self.catalogue
            .get(async {
                let mut work = self.store.begin(Scope::Anonymous).await?;
                let plans = work.plans().list(true).await?;
                work.commit().await?;
                Ok(plans)
            })
            .await
    }

    /// One plan. A withdrawn one is shown to administrators only.
    pub async fn find(&self, id: &PlanId, to_admin: bool) -> Result<Plan, CatalogueError> {
        let unknown = || CatalogueError::UnknownPlan(id.clone());
        if !to_admin {
            let plans = self.available_plans().await?;
            return plans.iter().find(|plan| plan.id == *id).cloned().ok_or_else(unknown);
        }
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let plan = work.plans().find(id).await?.ok_or_else(unknown)?;
        work.commit().await?;
        Ok(plan)
    }

    /// For administrators: every plan, withdrawn ones too.
    pub async fn every_plan(&self) -> Result<Vec<Plan>, CatalogueError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let plans = work.plans().list(false).await?;
        work.commit().await?;
        Ok(plans)
    }

    pub async fn create(
        &self,
        actor: UserId,
        draft: &PlanDraft,
        once: IdempotencyService<Plan>,
    ) -> Result<IdempotentAnswer, CatalogueError> {
        let performed = retry_conflicts::<_, CatalogueError, _>(async || {
            let mut work = self.store.begin(Scope::on_order_of(actor)).await?;
            if let Some(replayed) = once.claim(&mut *work).await?? {
                return Ok(replayed);
            }
            if work.plans().list(false).await?.len() as u64 >= PLANS_MAX {
                return Err(CatalogueError::Full(PLANS_MAX));
            }
            let plan = work.plans().insert(draft).await.map_err(|error| match error {
                StoreError::Constraint { constraint } if constraint == "plans_pkey" => {
                    CatalogueError::IdTaken(draft.id.to_string())
                }
                other => CatalogueError::Store(other),
            })?;
            let performed = once.record(&mut *work, &plan).await?;
            work.commit().await?;
            Ok(performed)
        })
        .await?;
        self.forget_catalogue().await;
        Ok(performed)
    }

    /// Changes an existing plan; returns it as it is then.
    pub async fn change(&self, actor: UserId, id: &PlanId, edit: &PlanEdit) -> Result<Plan, CatalogueError> {
        if let PlanEdit::Describe(changes) = edit {
            may_change(id, changes)?;
        }
        let unknown = || CatalogueError::UnknownPlan(id.clone());
        let plan = retry_conflicts::<_, CatalogueError, _>(async || {
            let mut work = self.store.begin(Scope::on_order_of(actor)).await?;
            work.plans().find(id).await?.ok_or_else(unknown)?;
            apply(&mut *work, id, edit).await?;
            let plan = work.plans().find(id).await?.ok_or_else(unknown)?;
            work.commit().await?;
            Ok(plan)
        })
        .await?;
        self.forget_catalogue().await;
        Ok(plan)
    }

    pub async fn delete(&self, actor: UserId, id: &PlanId) -> Result<(), CatalogueError> {
        retry_conflicts::<_, CatalogueError, _>(async || {
            let mut work = self.store.begin(Scope::on_order_of(actor)).await?;
            if work.plans().find(id).await?.is_none() {
                return Err(CatalogueError::UnknownPlan(id.clone()));
            }
            may_delete(id, work.plans().count_references(id).await?)?;
            // A user who takes the plan between the count and the deletion is caught by the foreign key.
            work.plans().delete(id).await.map_err(|error| match error {
                StoreError::Constraint { .. } => CatalogueError::Kept(PlanKept::InUse { users: 1 }),
                other => CatalogueError::Store(other),
            })?;
            Ok(work.commit().await?)
        })
        .await?;
        self.forget_catalogue().await;
        Ok(())
    }
}

async fn apply(work: &mut dyn UnitOfWork, id: &PlanId, edit: &PlanEdit) -> Result<(), CatalogueError> {
    match edit {
        PlanEdit::Describe(changes) => {
            work.plans().save(id, changes).await?;
        }
        PlanEdit::Grant(feature) => {
            if work.features().find(&feature.feature_id).await?.is_none() {
                return Err(CatalogueError::UnknownFeature(feature.feature_id.clone()));
            }
            work.plans().save_feature(id, feature).await?;
        }
        PlanEdit::Revoke(feature_id) => {
            if !work.plans().delete_feature(id, feature_id).await? {
                return Err(CatalogueError::NotInPlan { plan_id: id.clone(), feature_id: feature_id.clone() });
            }
        }
    }
    Ok(())
}
