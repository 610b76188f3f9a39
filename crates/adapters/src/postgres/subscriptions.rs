//! Subscriptions on Postgres. `effective_plan` decides which plan is in force.
//!
//! Costs: `find` is one round trip, `lock` three, `save_plan` three, the others one. Locks, in this order: the user's
//! row, then the live subscription's, both FOR NO KEY UPDATE.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::plans::PlanId;
use domain::subscriptions::{ScheduledChange, Subscription};
use domain::users::UserId;
use ports::store::StoreError;
use ports::subscriptions::{PlanInForce, SubscriptionRepository};
use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::OnConflict;
use sea_orm::{EntityTrait, FromQueryResult};
use uuid::Uuid;

use super::entities::scheduled_plan_changes;
use super::error::store_error;
use super::rows::{inconsistent, limit};
use super::store::PgUnitOfWork;

#[derive(FromQueryResult)]
struct PlanInForceRow {
    plan_id: String,
    status: String,
    as_of: DateTime<Utc>,
    subscription_id: Option<Uuid>,
    subscription_plan_id: Option<String>,
    subscription_status: Option<String>,
    stripe_subscription_id: Option<String>,
    trial_end: Option<DateTime<Utc>>,
    current_period_start: Option<DateTime<Utc>>,
    current_period_end: Option<DateTime<Utc>>,
    cancel_at_period_end: Option<bool>,
    scheduled_plan_id: Option<String>,
    scheduled_at: Option<DateTime<Utc>>,
}

#[async_trait]
impl SubscriptionRepository for PgUnitOfWork {
    async fn find(&mut self, user_id: UserId) -> Result<Option<PlanInForce>, StoreError> {
        let row = self.read_one(include_str!("sql/find_plan_in_force.sql"), [user_id.0.into()]).await?;
        row.map(|row| plan_in_force(user_id, row)).transpose()
    }

    async fn lock(&mut self, user_id: UserId) -> Result<Option<PlanInForce>, StoreError> {
        // One statement per table, so that the locking order is ours and not the planner's. The values are read
        // afterwards: a statement that waited for a lock may return the other rows as they were before.
        let lock_user = "SELECT id FROM users WHERE id = $1 FOR NO KEY UPDATE";
        if self.read_value::<Uuid>(lock_user, [user_id.0.into()]).await?.is_none() {
            return Ok(None);
        }
        let lock_subscription = "SELECT id FROM user_subscriptions \
            WHERE user_id = $1 AND status IN ('trialing', 'active', 'past_due') AND NOT is_duplicate FOR NO KEY UPDATE";
        self.read_value::<Uuid>(lock_subscription, [user_id.0.into()]).await?;
        SubscriptionRepository::find(self, user_id).await
    }

    async fn save_plan(
        &mut self,
        user_id: UserId,
        plan_id: &PlanId,
        subscription_id: Option<Uuid>,
    ) -> Result<(), StoreError> {
        // The time is set explicitly: returning to the plan whose subscription ended changes no other column.
        let profile = "UPDATE users SET plan_id = $2, plan_changed_at = clock_timestamp() WHERE id = $1";
        self.run(profile, [user_id.0.into(), plan_id.as_str().into()]).await?;
        if let Some(subscription_id) = subscription_id {
            let subscription = "UPDATE user_subscriptions SET plan_id = $2 WHERE id = $3 AND user_id = $1";
            let values = [user_id.0.into(), plan_id.as_str().into(), subscription_id.into()];
            self.run(subscription, values).await?;
        }
        self.unschedule(user_id).await.map(drop)
    }

    async fn end(&mut self, subscription_id: Uuid) -> Result<(), StoreError> {
        let ended = "UPDATE user_subscriptions SET status = 'canceled' WHERE id = $1";
        self.run(ended, [subscription_id.into()]).await.map(drop)
    }

    async fn schedule(
        &mut self,
        user_id: UserId,
        change: &ScheduledChange,
        requested_by: Option<UserId>,
    ) -> Result<(), StoreError> {
        let row = scheduled_plan_changes::ActiveModel {
            user_id: Set(user_id.0),
            plan_id: Set(change.plan_id.to_string()),
            effective_at: Set(change.effective_at),
            requested_by: Set(requested_by.map(|requester| requester.0)),
        };
        let replacing = OnConflict::column(scheduled_plan_changes::Column::UserId)
            .update_columns([
                scheduled_plan_changes::Column::PlanId,
                scheduled_plan_changes::Column::EffectiveAt,
                scheduled_plan_changes::Column::RequestedBy,
            ])
            .to_owned();
        let insert = scheduled_plan_changes::Entity::insert(row).on_conflict(replacing);
        insert.exec_without_returning(&self.transaction).await.map(drop).map_err(|error| store_error(&error))
    }

    async fn unschedule(&mut self, user_id: UserId) -> Result<bool, StoreError> {
        Ok(self.run("DELETE FROM scheduled_plan_changes WHERE user_id = $1", [user_id.0.into()]).await? > 0)
    }

    async fn list_due(&mut self, excluded: &[UserId], rows_max: u64) -> Result<Vec<UserId>, StoreError> {
        let sql = "SELECT user_id FROM scheduled_plan_changes WHERE effective_at <= now() AND user_id <> ALL ($1) \
            ORDER BY effective_at, user_id LIMIT $2";
        let excluded: Vec<Uuid> = excluded.iter().map(|user_id| user_id.0).collect();
        let due = self.read_values::<Uuid>(sql, [excluded.into(), limit(rows_max)]).await?;
        Ok(due.into_iter().map(UserId).collect())
    }

    async fn save_grace_days(&mut self, days: u16) -> Result<(), StoreError> {
        // Every instance does this at its start; nothing is written without a change.
        let sql = "INSERT INTO runtime_settings AS kept (name, value) VALUES ('past_due_grace_days', to_jsonb($1::integer)) \
            ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE kept.value <> excluded.value";
        self.run(sql, [i32::from(days).into()]).await.map(drop)
    }
}

fn plan_in_force(user_id: UserId, row: PlanInForceRow) -> Result<PlanInForce, StoreError> {
    let unfit = |table| inconsistent(table, user_id);
    let plan_id = |table, text: &str| PlanId::parse(text).map_err(|_| unfit(table));
    let scheduled = row.scheduled_plan_id.as_deref().zip(row.scheduled_at).map(|(text, effective_at)| {
        plan_id("scheduled_plan_changes", text).map(|plan_id| ScheduledChange { plan_id, effective_at })
    });
    let in_force = plan_id("users", &row.plan_id)?;
    let scheduled = scheduled.transpose()?;
    let (status, as_of) = (row.status.clone(), row.as_of);
    Ok(PlanInForce { plan_id: in_force, status, subscription: subscription(row)?, scheduled, as_of })
}

fn subscription(row: PlanInForceRow) -> Result<Option<Subscription>, StoreError> {
    let Some((id, plan_id, status)) = row
        .subscription_id
        .zip(row.subscription_plan_id)
        .zip(row.subscription_status)
        .map(|((id, plan_id), status)| (id, plan_id, status))
    else {
        return Ok(None);
    };
    let unfit = || inconsistent("user_subscriptions", id);
    Ok(Some(Subscription {
        id,
        plan_id: PlanId::parse(&plan_id).map_err(|_| unfit())?,
        status: status.parse().map_err(|_| unfit())?,
        stripe_subscription_id: row.stripe_subscription_id,
        trial_end: row.trial_end,
        current_period_start: row.current_period_start,
        current_period_end: row.current_period_end,
        cancel_at_period_end: row.cancel_at_period_end.unwrap_or_default(),
    }))
}
