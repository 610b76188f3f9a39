//! Usage history: the sums of what was used, and the job that updates them.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::features::FeatureId;
use domain::usage::PeriodKind;
use domain::usage_history::{TimeRange, UsageSum};
use domain::users::UserId;

use crate::store::{Page, StoreError};

/// The user whose use is summed, and which of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageFilter {
    /// `None` is all users.
    pub user_id: Option<UserId>,
    pub feature_id: Option<FeatureId>,
    pub period: Option<PeriodKind>,
}

/// The position of a sum in the list, which is its key there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsagePosition {
    pub bucket: DateTime<Utc>,
    pub feature_id: FeatureId,
    pub period: PeriodKind,
    pub period_start: DateTime<Utc>,
}

#[async_trait]
pub trait UsageHistoryRepository: Send {
    /// Newest bucket first, within a bucket in the order of feature, period and its start. Includes what was committed
    /// before, summed already or not.
    async fn list(
        &mut self,
        filter: &UsageFilter,
        stretch: &TimeRange,
        page: &Page<UsagePosition>,
    ) -> Result<Vec<UsageSum>, StoreError>;
    /// The database's time.
    async fn now(&mut self) -> Result<DateTime<Utc>, StoreError>;
    /// Sums what is not summed yet, a bounded part of it. Returns how many hours are left for the next call.
    async fn roll_up(&mut self) -> Result<i64, StoreError>;
    /// The same for calls of models.
    async fn roll_up_calls(&mut self) -> Result<i64, StoreError>;
    /// How many seconds the sums are behind; `None` before the first roll-up.
    async fn lag_seconds(&mut self) -> Result<Option<i64>, StoreError>;
}
