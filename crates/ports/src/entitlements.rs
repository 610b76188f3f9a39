//! Entitlements: the facts that a decision rests on, and the exceptions of single customers.

use async_trait::async_trait;
use domain::entitlements::{Entitlement, FeatureOverride};
use domain::features::{FeatureId, FeatureKind};
use domain::users::UserId;

use crate::store::StoreError;

/// An entitlement with what people call the feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedEntitlement {
    pub display_name: String,
    pub kind: FeatureKind,
    pub unit: Option<String>,
    pub entitlement: Entitlement,
}

/// Why there are no facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    User,
    Feature,
}

#[async_trait]
pub trait EntitlementRepository: Send {
    /// All facts of one feature for one user, in one statement.
    async fn find(
        &mut self,
        user_id: UserId,
        feature_id: &FeatureId,
    ) -> Result<Result<NamedEntitlement, Missing>, StoreError>;
    /// The same for every active feature, in the order of their ids. Bounded by `FEATURES_MAX`.
    async fn list(&mut self, user_id: UserId) -> Result<Vec<NamedEntitlement>, StoreError>;

    async fn list_overrides(&mut self, user_id: UserId) -> Result<Vec<FeatureOverride>, StoreError>;
    async fn save_override(&mut self, exception: &FeatureOverride) -> Result<(), StoreError>;
    async fn delete_override(&mut self, user_id: UserId, feature_id: &FeatureId) -> Result<bool, StoreError>;
}
