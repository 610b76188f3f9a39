//! Plans: the catalogue's rows.

use async_trait::async_trait;
use domain::features::FeatureId;
use domain::plans::{Plan, PlanChanges, PlanDraft, PlanFeature, PlanId};

use crate::store::StoreError;

/// How many plans a catalogue can hold.
pub const PLANS_MAX: u64 = 200;

#[async_trait]
pub trait PlanRepository: Send {
    /// With its features, active or not.
    async fn find(&mut self, id: &PlanId) -> Result<Option<Plan>, StoreError>;
    /// The whole catalogue with its features, cheapest first. Bounded by `PLANS_MAX`.
    async fn list(&mut self, only_active: bool) -> Result<Vec<Plan>, StoreError>;
    /// `Constraint { plans_pkey }` where the id is taken.
    async fn insert(&mut self, draft: &PlanDraft) -> Result<Plan, StoreError>;
    async fn save(&mut self, id: &PlanId, changes: &PlanChanges) -> Result<bool, StoreError>;
    /// Users, subscriptions and scheduled changes that name the plan.
    async fn count_references(&mut self, id: &PlanId) -> Result<i64, StoreError>;
    /// `Constraint` where something still names the plan.
    async fn delete(&mut self, id: &PlanId) -> Result<bool, StoreError>;
    /// Sets what a plan grants of a feature, new or not.
    async fn save_feature(&mut self, id: &PlanId, feature: &PlanFeature) -> Result<(), StoreError>;
    async fn delete_feature(&mut self, id: &PlanId, feature_id: &FeatureId) -> Result<bool, StoreError>;
}
