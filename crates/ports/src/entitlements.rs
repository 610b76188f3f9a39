//! Entitlements: the facts that a decision needs, and the exceptions of single customers.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::entitlements::{Count, Entitlement, FeatureOverride};
use domain::features::{FeatureId, FeatureKind};
use domain::usage::Period;
use domain::users::UserId;

use crate::changes::CacheTicket;
use crate::store::StoreError;

/// An entitlement with the name and unit of its feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedEntitlement {
    pub display_name: String,
    pub kind: FeatureKind,
    pub unit: Option<String>,
    pub entitlement: Entitlement,
}

/// Why there are no facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeterMissing {
    User,
    Feature,
}

/// An entitlement, and when its facts change without a write: an exception, a trial, a grace or the period ends, or a
/// scheduled change comes due. `None` is never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntitlementState {
    pub entitlement: Entitlement,
    pub changes_at: Option<DateTime<Utc>>,
}

/// What is counted: one feature of one user.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Meter {
    pub user_id: UserId,
    pub feature_id: FeatureId,
}

/// What is cached of an entitlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CachedDecision {
    /// All of it.
    Whole(Entitlement),
    /// Everything but the count, which is too old; the value in its place must not be used.
    Facts(Entitlement),
    Nothing,
}

/// The cache of entitlements. No method waits. Facts are at most a second behind the database (young, or confirmed as
/// fresh by a feed of changes) and are never returned after the moment at which they change without a write. A count is
/// at most a second old.
pub trait EntitlementCache: Send + Sync {
    fn recall(&self, meter: &Meter) -> CachedDecision;
    /// To be taken before the database is read.
    fn ticket(&self, user_id: UserId) -> CacheTicket;
    fn remember(&self, meter: &Meter, standing: &EntitlementState, ticket: &CacheTicket);
    /// Replaces the count of cached facts, if they are of this period.
    fn recount(&self, meter: &Meter, period: &Period, count: &Count, ticket: &CacheTicket);
    /// The count after a commit of this process: newer than any that was requested before this call.
    fn note(&self, meter: &Meter, period: &Period, count: &Count);
}

#[async_trait]
pub trait EntitlementRepository: Send {
    /// All facts of one feature for one user, in one statement.
    async fn find(
        &mut self,
        user_id: UserId,
        feature_id: &FeatureId,
    ) -> Result<Result<NamedEntitlement, MeterMissing>, StoreError>;
    /// All facts of many, in the order of `meters`. One statement; in `Scope::Counting`, it goes through the keys of
    /// its tables.
    async fn find_many(&mut self, meters: &[Meter]) -> Result<Vec<Result<EntitlementState, MeterMissing>>, StoreError>;
    /// Only the counts of those periods, likewise; `None` where there is no such user.
    async fn count_many(&mut self, periods: &[(Meter, Period)]) -> Result<Vec<Option<Count>>, StoreError>;
    /// The same as `find` for every active feature, in the order of their ids. Bounded by `FEATURES_MAX`.
    async fn list(&mut self, user_id: UserId) -> Result<Vec<NamedEntitlement>, StoreError>;

    async fn list_overrides(&mut self, user_id: UserId) -> Result<Vec<FeatureOverride>, StoreError>;
    async fn save_override(&mut self, exception: &FeatureOverride) -> Result<(), StoreError>;
    async fn delete_override(&mut self, user_id: UserId, feature_id: &FeatureId) -> Result<bool, StoreError>;
}
