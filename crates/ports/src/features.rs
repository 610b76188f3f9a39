//! Features: the catalogue's rows.

use async_trait::async_trait;
use domain::features::{Feature, FeatureChanges, FeatureDraft, FeatureId};

use crate::store::StoreError;

/// How many features a catalogue can hold.
pub const FEATURES_MAX: u64 = 500;

#[async_trait]
pub trait FeatureRepository: Send {
    async fn find(&mut self, id: &FeatureId) -> Result<Option<Feature>, StoreError>;
    /// In the order of their ids. Bounded by `FEATURES_MAX`.
    async fn list(&mut self, only_active: bool) -> Result<Vec<Feature>, StoreError>;
    async fn insert(&mut self, draft: &FeatureDraft) -> Result<Feature, StoreError>;
    async fn save(&mut self, id: &FeatureId, changes: &FeatureChanges) -> Result<bool, StoreError>;
    /// Plans that grant the feature, overrides of it and counters of its use.
    async fn count_references(&mut self, id: &FeatureId) -> Result<i64, StoreError>;
    async fn delete(&mut self, id: &FeatureId) -> Result<bool, StoreError>;
}
