//! Subscriptions: a user's plan in force, and how it changes.
//!
//! A change locks the user's row and the live subscription's, applies the rule, writes, commits. A trigger writes the
//! audit row. A change that waits for the end of the paid period is in force by `effective_plan` from that moment on;
//! the job that applies it only updates the rows.

use domain::changes::Change;
use domain::entitlements::Decision;
use domain::features::FeatureId;
use domain::plans::{Plan, PlanId};
use domain::subscriptions::{
    BillingAuthority, ChangeWhen, PlanChange, PlanChangeRefused, ScheduledChange, Subscription, SubscriptionState,
    change_plan,
};
use domain::users::UserId;
use ports::entitlements::NamedEntitlement;
use ports::store::{Scope, StoreError, UnitOfWork};
use ports::subscriptions::PlanInForce;
use thiserror::Error;
use tracing::warn;

use crate::conflicts::{may_conflict, retry_conflicts};
use crate::entitlements::EntitlementError;
use crate::idempotency::{IdempotencyService, IdempotentAnswer, KeyConflict};
use crate::plans::PlanService;

/// How many due changes one run of the job applies at most.
const APPLIED_AT_ONCE: u64 = 500;

/// A user's plan, and what it allows now: the seeds' `UserPlanInfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserPlanInfo {
    pub user_id: UserId,
    pub in_force: PlanInForce,
    pub plan: Plan,
    pub features: Vec<NamedEntitlement>,
}

/// A change that was made, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedPlan {
    pub change: PlanChange,
    /// Whether only a preview was requested.
    pub preview: bool,
    /// The user's plan after it (in a preview: the present one).
    pub info: UserPlanInfo,
}

/// The requested change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanWish {
    pub plan_id: PlanId,
    pub when: Option<ChangeWhen>,
    pub preview: bool,
}

#[derive(Debug, Error)]
pub enum PlanChangeError {
    #[error("there is no such user")]
    UnknownUser,
    #[error("there is no plan `{0}`")]
    UnknownPlan(PlanId),
    #[error(transparent)]
    Refused(#[from] PlanChangeRefused),
    #[error(transparent)]
    Key(#[from] KeyConflict),
    #[error(transparent)]
    Store(#[from] StoreError),
}
may_conflict!(PlanChangeError);

impl PlanService {
    /// `None` where there is no profile. The service reads it, not the user: a withdrawn plan is hidden from users, but
    /// those who have it keep it.
    pub async fn user_plan_info(&self, user_id: UserId) -> Result<Option<UserPlanInfo>, StoreError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let info = read_info(&mut *work, user_id).await?;
        work.commit().await?;
        Ok(info)
    }

    /// Whether the user has the feature at all, used up or not.
    pub async fn check_feature_access(
        &self,
        user_id: UserId,
        feature_id: &FeatureId,
    ) -> Result<bool, EntitlementError> {
        let facts = crate::entitlements::read(&*self.store, user_id, feature_id).await?;
        Ok(facts.entitlement.access == domain::entitlements::Access::Granted)
    }

    /// Whether one more use is within the limit.
    pub async fn check_usage_limit(
        &self,
        user_id: UserId,
        feature_id: &FeatureId,
    ) -> Result<Decision, EntitlementError> {
        let facts = crate::entitlements::read(&*self.store, user_id, feature_id).await?;
        Ok(domain::entitlements::decide(&facts.entitlement, 1))
    }

    /// The user changes the plan.
    pub async fn change_plan(
        &self,
        user_id: UserId,
        wish: &PlanWish,
        once: &IdempotencyService<ChangedPlan>,
    ) -> Result<IdempotentAnswer, PlanChangeError> {
        let scope = Scope::on_order_of(user_id);
        let changed = retry_conflicts(async || {
            self.change_once(scope.clone(), user_id, wish, BillingAuthority::User, once).await
        })
        .await?;
        self.changes.invalidate(Change::User(user_id));
        Ok(changed)
    }

    /// An administrator grants a plan; nothing is owed for it.
    pub async fn grant_plan(
        &self,
        actor: UserId,
        reason: Option<String>,
        user_id: UserId,
        wish: &PlanWish,
        once: &IdempotencyService<ChangedPlan>,
    ) -> Result<IdempotentAnswer, PlanChangeError> {
        let scope = Scope::Service { actor: Some(actor), reason };
        let changed = retry_conflicts(async || {
            self.change_once(scope.clone(), user_id, wish, BillingAuthority::Admin, once).await
        })
        .await?;
        self.changes.invalidate(Change::User(user_id));
        Ok(changed)
    }

    async fn change_once(
        &self,
        scope: Scope,
        user_id: UserId,
        wish: &PlanWish,
        authority: BillingAuthority,
        once: &IdempotencyService<ChangedPlan>,
    ) -> Result<IdempotentAnswer, PlanChangeError> {
        let actor = match &scope {
            Scope::Service { actor, .. } => *actor,
            Scope::User(user_id) => Some(*user_id),
            Scope::Anonymous | Scope::Counting | Scope::Reading => None,
        };
        let mut work = self.store.begin(scope).await?;
        if let Some(replayed) = once.claim(&mut *work).await?? {
            return Ok(replayed);
        }
        let standing = work.subscriptions().lock(user_id).await?.ok_or(PlanChangeError::UnknownUser)?;
        let current = find_plan(&mut *work, &standing.plan_id).await?;
        let target = find_plan(&mut *work, &wish.plan_id).await?;
        // Only Stripe ends a subscription that it bills, lapsed or not: the rule refuses the change.
        let (lapsed, live) = match standing.subscription {
            Some(old) if old.has_lapsed(&standing.plan_id) && old.stripe_subscription_id.is_none() => (Some(old), None),
            other => (None, other),
        };
        let rests_on = SubscriptionState { plan: &current, subscription: live.as_ref() };
        let change = change_plan(&rests_on, &target, wish.when, authority, self.billing_mode, standing.as_of)?;
        if !wish.preview {
            if let Some(lapsed) = lapsed {
                work.subscriptions().end(lapsed.id).await?;
            }
            apply(&mut *work, user_id, &change, live.as_ref(), actor).await?;
        }
        let info = read_info(&mut *work, user_id).await?.ok_or(PlanChangeError::UnknownUser)?;
        let changed = ChangedPlan { change, preview: wish.preview, info };
        let performed = once.record(&mut *work, &changed).await?;
        work.commit().await?;
        Ok(performed)
    }

    /// Drops a scheduled change; returns whether there was one.
    pub async fn keep_plan(&self, user_id: UserId) -> Result<bool, StoreError> {
        let mut work = self.store.begin(Scope::on_order_of(user_id)).await?;
        let dropped = work.subscriptions().unschedule(user_id).await?;
        work.commit().await?;
        self.changes.invalidate(Change::User(user_id));
        Ok(dropped)
    }

    /// Writes due changes into the rows that they are about; a job calls it. Returns how many.
    pub async fn apply_due_changes(&self) -> Result<usize, StoreError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let due = work.subscriptions().list_due(&self.postponed.excluded(), APPLIED_AT_ONCE).await?;
        work.commit().await?;
        let mut applied = 0;
        for user_id in due {
            match retry_conflicts(async || self.apply_due_change(user_id).await).await {
                Ok(is_applied) => {
                    self.postponed.done(user_id);
                    applied += usize::from(is_applied);
                }
                Err(error @ (StoreError::Unavailable(_) | StoreError::InDoubt(_))) => return Err(error),
                Err(error) => {
                    let pause = self.postponed.failed(user_id);
                    warn!(%error, %user_id, ?pause, "a plan change that is due could not be applied");
                }
            }
        }
        Ok(applied)
    }

    async fn apply_due_change(&self, user_id: UserId) -> Result<bool, StoreError> {
        let reason = Some("the paid period ended".to_owned());
        let mut work = self.store.begin(Scope::Service { actor: None, reason }).await?;
        let Some(standing) = work.subscriptions().lock(user_id).await? else { return Ok(false) };
        // Between the list and the lock the user may have cancelled it.
        let Some(due) = standing.scheduled.filter(|change| change.effective_at <= standing.as_of) else {
            return Ok(false);
        };
        let subscription_id = standing.subscription.map(|subscription| subscription.id);
        work.subscriptions().save_plan(user_id, &due.plan_id, subscription_id).await?;
        work.commit().await?;
        self.changes.invalidate(Change::User(user_id));
        Ok(true)
    }

    /// Stores the grace of `past_due` (`billing.past_due_grace_days`) where `effective_plan` reads it.
    pub async fn keep_grace_days(&self, days: u16) -> Result<(), StoreError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        work.subscriptions().save_grace_days(days).await?;
        work.commit().await?;
        self.changes.invalidate(Change::Catalogue);
        Ok(())
    }
}

async fn find_plan(work: &mut dyn UnitOfWork, id: &PlanId) -> Result<Plan, PlanChangeError> {
    work.plans().find(id).await?.ok_or_else(|| PlanChangeError::UnknownPlan(id.clone()))
}

async fn apply(
    work: &mut dyn UnitOfWork,
    user_id: UserId,
    change: &PlanChange,
    live: Option<&Subscription>,
    actor: Option<UserId>,
) -> Result<(), StoreError> {
    match change.when {
        ChangeWhen::Now => {
            let subscription_id = live.map(|subscription| subscription.id);
            work.subscriptions().save_plan(user_id, &change.to, subscription_id).await
        }
        ChangeWhen::PeriodEnd => {
            let scheduled = ScheduledChange { plan_id: change.to.clone(), effective_at: change.effective_at };
            work.subscriptions().schedule(user_id, &scheduled, actor).await
        }
    }
}

async fn read_info(work: &mut dyn UnitOfWork, user_id: UserId) -> Result<Option<UserPlanInfo>, StoreError> {
    let Some(in_force) = work.subscriptions().find(user_id).await? else { return Ok(None) };
    let inconsistent = || StoreError::Inconsistent { table: "plans", key: in_force.plan_id.to_string() };
    let plan = work.plans().find(&in_force.plan_id).await?.ok_or_else(inconsistent)?;
    let features = work.entitlements().list(user_id).await?;
    Ok(Some(UserPlanInfo { user_id, in_force, plan, features }))
}
