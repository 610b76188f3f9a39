//! Usage on Postgres: what a batch of consumptions reads and writes.
//!
//! Costs: `lock_batch` and `record_batch` are one round trip each, whatever the size of the batch; the service bounds it.
//! Locks: counters, in the order of the meters, until the end of the transaction. `spend_tokens` wants the user's row
//! locked beforehand.

use chrono::{DateTime, TimeDelta, Utc};
use domain::entitlements::{Decision, Reason, Source};
use domain::features::FeatureId;
use domain::plans::PlanId;
use domain::usage::Period;
use domain::users::UserId;
use ports::store::{Locked, StoreError};
use ports::usage::{Grant, KeptOutcome, KeyOfMeter, LockedBatch, Meter, MeterState, Patience, UsageRepository};
use sea_orm::FromQueryResult;
use sea_orm::prelude::Json;
use serde::Deserialize;
use uuid::Uuid;

use super::entitlements::{EntitlementRow, entitlement};
use super::rows::{inconsistent, limit};
use super::store::PgUnitOfWork;

const LOCK: &str = include_str!("sql/lock_usage_batch.sql");

#[derive(FromQueryResult)]
struct MeterRow {
    user_known: bool,
    outcomes: Option<Json>,
    is_locked: bool,
    is_held: bool,
    #[sea_orm(nested)]
    facts: Option<EntitlementRow>,
}

/// An outcome under its key, as the statement packs it.
#[derive(Deserialize)]
struct OutcomeRow {
    place: usize,
    amount: i64,
    feature_id: FeatureId,
    current: i64,
    limit: Option<i64>,
    remaining: Option<i64>,
    reserved: i64,
    plan_id: PlanId,
    source: Source,
    period_start: DateTime<Utc>,
    resets_at: Option<DateTime<Utc>>,
    as_of: DateTime<Utc>,
}

#[async_trait::async_trait]
impl UsageRepository for PgUnitOfWork {
    async fn lock_batch(
        &mut self,
        meters: &[Meter],
        keys: &[KeyOfMeter<'_>],
        patience: Patience,
    ) -> Result<LockedBatch, StoreError> {
        let (users, features): (Vec<Uuid>, Vec<String>) =
            meters.iter().map(|meter| (meter.user_id.0, meter.feature_id.to_string())).unzip();
        let (places, texts): (Vec<i64>, Vec<String>) =
            keys.iter().map(|key| (place(key.meter), key.key.as_str().to_owned())).unzip();
        let sql = match patience {
            Patience::Skip => LOCK.to_owned(),
            Patience::Wait => LOCK.replace(" SKIP LOCKED", ""),
        };
        let rows: Vec<MeterRow> =
            self.read_all(&sql, [users.into(), features.into(), places.into(), texts.into()]).await?;
        if rows.len() != meters.len() {
            return Err(StoreError::Unexpected("a batch was answered for another number of meters".to_owned()));
        }
        let mut batch = LockedBatch { meters: Vec::with_capacity(rows.len()), kept: Vec::new() };
        for (row, meter) in rows.into_iter().zip(meters) {
            if let Some(outcomes) = row.outcomes.clone() {
                batch.kept.extend(kept(outcomes, meter.user_id)?);
            }
            batch.meters.push(state(row, meter.user_id)?);
        }
        Ok(batch)
    }

    async fn open_counters(&mut self, counters: &[(Meter, Period)]) -> Result<(), StoreError> {
        let mut columns = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (meter, period) in counters {
            columns.0.push(meter.user_id.0);
            columns.1.push(meter.feature_id.to_string());
            columns.2.push(period.kind.as_str().to_owned());
            columns.3.push(period.start);
            columns.4.push(period.end.unwrap_or(DateTime::UNIX_EPOCH));
        }
        let sql = "SELECT open_usage_counter(c.user_id, c.feature_id, c.period, c.period_start, nullif(c.period_end, 'epoch')) \
            FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[]) \
                AS c (user_id, feature_id, period, period_start, period_end)";
        let values = [columns.0.into(), columns.1.into(), columns.2.into(), columns.3.into(), columns.4.into()];
        self.run(sql, values).await.map(drop)
    }

    async fn record_batch(&mut self, grants: &[Grant]) -> Result<(), StoreError> {
        let mut columns = Columns::default();
        for grant in grants {
            columns.add(grant);
        }
        let Columns { meters, grants } = columns;
        let values = [
            meters.users.into(),
            meters.features.into(),
            meters.periods.into(),
            meters.starts.into(),
            meters.ends.into(),
            meters.limits.into(),
            meters.plans.into(),
            meters.sources.into(),
            meters.reserved.into(),
            meters.used.into(),
            meters.overage.into(),
            grants.meters.into(),
            grants.events.into(),
            grants.keys.into(),
            grants.amounts.into(),
            grants.overage.into(),
            grants.api_keys.into(),
            grants.current.into(),
            grants.remaining.into(),
        ];
        self.run(include_str!("sql/record_usage_batch.sql"), values).await.map(drop)
    }

    async fn spend_tokens(
        &mut self,
        user_id: UserId,
        amount_tokens: i64,
        feature_id: &FeatureId,
    ) -> Result<(), StoreError> {
        let sql = "WITH spent AS (UPDATE users SET token_balance = token_balance - $2 WHERE id = $1 RETURNING id, token_balance) \
            INSERT INTO token_transactions (user_id, amount, type, description, balance_after) \
            SELECT id, -$2, 'usage', $3, token_balance FROM spent";
        let description = format!("{feature_id} beyond the limit");
        self.run(sql, [user_id.0.into(), amount_tokens.into(), description.into()]).await.map(drop)
    }

    async fn delete_outcomes(&mut self, age: TimeDelta, rows_max: u64) -> Result<u64, StoreError> {
        let sql = "DELETE FROM idempotency_keys AS k USING ( \
                SELECT user_id, key FROM idempotency_keys WHERE created_at < now() - make_interval(secs => $1) ORDER BY created_at LIMIT $2 \
            ) AS old WHERE k.user_id = old.user_id AND k.key = old.key";
        let seconds = age.as_seconds_f64();
        self.run(sql, [seconds.into(), limit(rows_max)]).await
    }
}

/// Places are counted from 1 in SQL.
fn place(index: usize) -> i64 {
    i64::try_from(index).map_or(i64::MAX, |index| index + 1)
}

fn state(row: MeterRow, user_id: UserId) -> Result<MeterState, StoreError> {
    let Some(facts) = row.facts else {
        return Ok(if row.user_known { MeterState::UnknownFeature } else { MeterState::UnknownUser });
    };
    let named = entitlement(user_id, facts)?;
    Ok(match (row.is_locked, row.is_held) {
        (true, _) => MeterState::Locked { kind: named.kind, entitlement: Locked::under_lock(named.entitlement) },
        (false, true) => MeterState::Held,
        (false, false) => MeterState::Uncounted(named.entitlement.period),
    })
}

fn kept(outcomes: Json, user_id: UserId) -> Result<Vec<(usize, KeptOutcome)>, StoreError> {
    let rows: Vec<OutcomeRow> =
        serde_json::from_value(outcomes).map_err(|_| inconsistent("idempotency_keys", user_id))?;
    Ok(rows.into_iter().map(|row| (row.place.saturating_sub(1), row.into())).collect())
}

impl From<OutcomeRow> for KeptOutcome {
    fn from(row: OutcomeRow) -> Self {
        let decision = Decision {
            allowed: true,
            reason: Reason::Ok,
            feature_id: row.feature_id,
            current: row.current,
            limit: row.limit,
            remaining: row.remaining,
            reserved: row.reserved,
            plan_id: row.plan_id,
            source: row.source,
            period_start: row.period_start,
            resets_at: row.resets_at,
            as_of: row.as_of,
        };
        Self { amount: row.amount, decision }
    }
}

/// The arrays of the writing statement.
#[derive(Default)]
struct Columns {
    meters: MeterColumns,
    grants: GrantColumns,
}

#[derive(Default)]
struct MeterColumns {
    users: Vec<Uuid>,
    features: Vec<String>,
    periods: Vec<String>,
    starts: Vec<DateTime<Utc>>,
    ends: Vec<DateTime<Utc>>,
    limits: Vec<i64>,
    plans: Vec<String>,
    sources: Vec<String>,
    reserved: Vec<i64>,
    used: Vec<i64>,
    overage: Vec<i64>,
    places: std::collections::HashMap<(UserId, FeatureId), usize>,
}

#[derive(Default)]
struct GrantColumns {
    meters: Vec<i64>,
    events: Vec<Uuid>,
    keys: Vec<String>,
    amounts: Vec<i64>,
    overage: Vec<i64>,
    api_keys: Vec<Uuid>,
    current: Vec<i64>,
    remaining: Vec<i64>,
}

impl Columns {
    fn add(&mut self, grant: &Grant) {
        let meter = self.meters.place_of(grant);
        let columns = &mut self.grants;
        columns.meters.push(place(meter));
        columns.events.push(grant.event_id);
        columns.keys.push(grant.key.as_str().to_owned());
        columns.amounts.push(grant.amount);
        columns.overage.push(grant.overage);
        columns.api_keys.push(grant.api_key_id.unwrap_or_default());
        columns.current.push(grant.decision.current);
        columns.remaining.push(grant.decision.remaining.unwrap_or(-1));
    }
}

impl MeterColumns {
    /// The place of the grant's meter, to which its share is added.
    fn place_of(&mut self, grant: &Grant) -> usize {
        let decision = &grant.decision;
        let meter = (grant.user_id, decision.feature_id.clone());
        let next = self.users.len();
        let place = *self.places.entry(meter).or_insert(next);
        if place == next {
            self.users.push(grant.user_id.0);
            self.features.push(decision.feature_id.to_string());
            self.periods.push(grant.period.kind.as_str().to_owned());
            self.starts.push(grant.period.start);
            self.ends.push(grant.period.end.unwrap_or(DateTime::UNIX_EPOCH));
            self.limits.push(decision.limit.unwrap_or(-1));
            self.plans.push(decision.plan_id.to_string());
            self.sources.push(if decision.source == Source::Override { "override" } else { "plan" }.to_owned());
            self.reserved.push(decision.reserved);
            self.used.push(0);
            self.overage.push(0);
        }
        if let (Some(used), Some(overage)) = (self.used.get_mut(place), self.overage.get_mut(place)) {
            *used += grant.amount;
            *overage += grant.overage;
        }
        place
    }
}
