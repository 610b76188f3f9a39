//! Entitlements: the facts that a decision rests on, and the exceptions of single customers.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::entitlements::{Count, Entitlement, FeatureOverride};
use domain::features::{FeatureId, FeatureKind};
use domain::usage::Period;
use domain::users::UserId;

use crate::changes::Ticket;
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

/// An entitlement, and until when its facts hold if nobody changes them: an exception, a trial, a grace or the period
/// ends, or a scheduled change comes due. `None` is for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub entitlement: Entitlement,
    pub changes_at: Option<DateTime<Utc>>,
}

/// What is counted: one feature of one user.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Meter {
    pub user_id: UserId,
    pub feature_id: FeatureId,
}

/// What is remembered of an entitlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recalled {
    /// All of it.
    Whole(Entitlement),
    /// Everything but the count, which is too old; what stands in its place is not to be used.
    Facts(Entitlement),
    Nothing,
}

/// What is remembered of entitlements. Nothing waits here. Facts are at most a second behind the database (young, or
/// vouched for by a feed of changes) and are never given beyond the moment at which they change by themselves. A count
/// is at most a second old.
pub trait EntitlementCache: Send + Sync {
    fn recall(&self, meter: &Meter) -> Recalled;
    /// To be taken before the database is asked.
    fn ticket(&self, user_id: UserId) -> Ticket;
    fn remember(&self, meter: &Meter, standing: &Standing, ticket: &Ticket);
    /// Puts another count to facts that are remembered, if they are of this period.
    fn recount(&self, meter: &Meter, period: &Period, count: &Count, ticket: &Ticket);
    /// What a commit of this very process left: newer than whatever was asked for before this call.
    fn note(&self, meter: &Meter, period: &Period, count: &Count);
}

#[async_trait]
pub trait EntitlementRepository: Send {
    /// All facts of one feature for one user, in one statement.
    async fn find(
        &mut self,
        user_id: UserId,
        feature_id: &FeatureId,
    ) -> Result<Result<NamedEntitlement, Missing>, StoreError>;
    /// All facts of many, in the order in which they are asked for. One statement; asked in `Scope::Counting`, it goes
    /// through the keys of its tables.
    async fn find_many(&mut self, meters: &[Meter]) -> Result<Vec<Result<Standing, Missing>>, StoreError>;
    /// Nothing but the counts of those periods, likewise; `None` where there is no such user.
    async fn count_many(&mut self, periods: &[(Meter, Period)]) -> Result<Vec<Option<Count>>, StoreError>;
    /// The same as `find` for every active feature, in the order of their ids. Bounded by `FEATURES_MAX`.
    async fn list(&mut self, user_id: UserId) -> Result<Vec<NamedEntitlement>, StoreError>;

    async fn list_overrides(&mut self, user_id: UserId) -> Result<Vec<FeatureOverride>, StoreError>;
    async fn save_override(&mut self, exception: &FeatureOverride) -> Result<(), StoreError>;
    async fn delete_override(&mut self, user_id: UserId, feature_id: &FeatureId) -> Result<bool, StoreError>;
}
