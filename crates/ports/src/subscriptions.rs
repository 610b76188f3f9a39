//! Subscriptions: the plan in force, and its changes.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::plans::PlanId;
use domain::subscriptions::{ScheduledChange, Subscription};
use domain::users::UserId;
use uuid::Uuid;

use crate::store::StoreError;

/// The result of `effective_plan` for a user, and the rows behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanInForce {
    pub plan_id: PlanId,
    /// The status of the live subscription, else `active`.
    pub status: String,
    pub subscription: Option<Subscription>,
    pub scheduled: Option<ScheduledChange>,
    /// The database's time of the read.
    pub as_of: DateTime<Utc>,
}

#[async_trait]
pub trait SubscriptionRepository: Send {
    /// `None` where there is no profile.
    async fn find(&mut self, user_id: UserId) -> Result<Option<PlanInForce>, StoreError>;
    /// The same, under the lock of the user's row and of the live subscription's.
    async fn lock(&mut self, user_id: UserId) -> Result<Option<PlanInForce>, StoreError>;
    /// Puts a plan in force at once: on the profile, and on the live subscription if there is one. A scheduled change
    /// is dropped.
    async fn save_plan(
        &mut self,
        user_id: UserId,
        plan_id: &PlanId,
        subscription_id: Option<Uuid>,
    ) -> Result<(), StoreError>;
    /// Ends a subscription whose trial or grace is over, so that it does not prevent a new plan.
    async fn end(&mut self, subscription_id: Uuid) -> Result<(), StoreError>;
    /// Schedules a change, in place of any other.
    async fn schedule(
        &mut self,
        user_id: UserId,
        change: &ScheduledChange,
        requested_by: Option<UserId>,
    ) -> Result<(), StoreError>;
    /// Drops a scheduled change; returns whether there was one.
    async fn unschedule(&mut self, user_id: UserId) -> Result<bool, StoreError>;
    /// Users whose change is due, at most `limit`, without those in `excluded`.
    async fn list_due(&mut self, excluded: &[UserId], limit: u64) -> Result<Vec<UserId>, StoreError>;
    /// Stores the grace of `past_due` where SQL reads it.
    async fn save_grace_days(&mut self, days: u16) -> Result<(), StoreError>;
}
