//! Counters on Postgres: locks and reads what a batch needs, and writes counters, events and outcomes.

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use domain::entitlements::Source;
use domain::usage::{CounterTally, Period};
use domain::users::UserId;
use ports::entitlements::Meter;
use ports::store::{LockPatience, LockResult, Locked, StoreError};
use ports::usage::{
    CounterChange, CounterKey, CounterRepository, KeyOfUser, LockedBatch, MeterState, StoredOutcome, UsageEntry,
};
use sea_orm::prelude::Json;
use sea_orm::{FromQueryResult, Value};
use uuid::Uuid;

use super::super::entitlements::{EntitlementRow, entitlement};
use super::super::rows::limit;
use super::super::store::PgUnitOfWork;
use super::columns::{CounterKeyColumns, column, lock_result, same_number, with_patience};
use super::stored_decisions;

pub(super) const LOCK_METERS: &str = include_str!("../sql/lock_usage_batch.sql");

#[derive(FromQueryResult)]
pub(super) struct MeterRow {
    user_known: bool,
    is_locked: bool,
    is_held: bool,
    #[sea_orm(nested)]
    facts: Option<EntitlementRow>,
}

#[derive(FromQueryResult)]
struct OutcomesRow {
    outcomes: Option<Json>,
}

#[derive(FromQueryResult)]
struct CounterRow {
    is_locked: bool,
    is_held: bool,
    used: i64,
    reserved: i64,
    overage: i64,
}

#[derive(Default)]
struct EntryColumns {
    keys: CounterKeyColumns,
    amounts: Vec<i64>,
    overage: Vec<i64>,
    api_keys: Vec<Uuid>,
    events: Vec<Uuid>,
    holds: Vec<Uuid>,
    idempotency_keys: Vec<String>,
    digests: Vec<String>,
    current: Vec<i64>,
    reserved: Vec<i64>,
    remaining: Vec<i64>,
    limits: Vec<i64>,
    plans: Vec<String>,
    sources: Vec<String>,
    resets: Vec<DateTime<Utc>>,
    hold_ends: Vec<DateTime<Utc>>,
}

impl EntryColumns {
    fn add(&mut self, entry: &UsageEntry) {
        self.keys.add(&entry.counter);
        self.amounts.push(entry.amount);
        self.overage.push(entry.overage);
        self.api_keys.push(entry.api_key_id.unwrap_or_default());
        self.events.push(entry.event_id.unwrap_or_default());
        self.holds.push(entry.reservation_id.map(|id| id.0).unwrap_or_default());
        let stored = entry.stored.as_ref();
        let decision = stored.map(|(_, outcome)| &outcome.decision);
        let reservation = stored.and_then(|(_, outcome)| outcome.reservation);
        self.idempotency_keys.push(stored.map(|(key, _)| key.as_str().to_owned()).unwrap_or_default());
        self.digests
            .push(if reservation.is_some() { stored_decisions::RESERVE } else { stored_decisions::CONSUME }.to_owned());
        self.current.push(decision.map_or(0, |decision| decision.current));
        self.reserved.push(decision.map_or(0, |decision| decision.reserved));
        self.remaining.push(decision.and_then(|decision| decision.remaining).unwrap_or(-1));
        self.limits.push(decision.and_then(|decision| decision.limit).unwrap_or(-1));
        self.plans.push(decision.map(|decision| decision.plan_id.to_string()).unwrap_or_default());
        let is_override = decision.is_some_and(|decision| decision.source == Source::Override);
        self.sources.push(if is_override { "override" } else { "plan" }.to_owned());
        self.resets.push(decision.and_then(|decision| decision.resets_at).unwrap_or(DateTime::UNIX_EPOCH));
        self.hold_ends.push(reservation.map_or(DateTime::UNIX_EPOCH, |granted| granted.expires_at));
    }

    fn values(self) -> impl Iterator<Item = Value> {
        let rest: [Value; 15] = [
            self.amounts.into(),
            self.overage.into(),
            self.api_keys.into(),
            self.events.into(),
            self.holds.into(),
            self.idempotency_keys.into(),
            self.digests.into(),
            self.current.into(),
            self.reserved.into(),
            self.remaining.into(),
            self.limits.into(),
            self.plans.into(),
            self.sources.into(),
            self.resets.into(),
            self.hold_ends.into(),
        ];
        self.keys.values().into_iter().chain(rest)
    }
}

#[async_trait]
impl CounterRepository for PgUnitOfWork {
    async fn lock_batch(
        &mut self,
        meters: &[Meter],
        keys: &[KeyOfUser<'_>],
        patience: LockPatience,
    ) -> Result<LockedBatch, StoreError> {
        let sql = with_patience(LOCK_METERS, patience);
        let rows: Vec<MeterRow> = self.read_all(&sql, meter_columns(meters)).await?;
        Ok(LockedBatch { meters: meter_states(rows, meters)?, granted: find_outcomes(self, keys).await? })
    }

    async fn open(&mut self, counters: &[(Meter, Period)]) -> Result<(), StoreError> {
        let mut keys = CounterKeyColumns::default();
        let mut ends = Vec::with_capacity(counters.len());
        for (meter, period) in counters {
            keys.add(&CounterKey { meter: meter.clone(), period_kind: period.kind, period_start: period.start });
            ends.push(period.end.unwrap_or(DateTime::UNIX_EPOCH));
        }
        let sql = "SELECT open_usage_counter(c.user_id, c.feature_id, c.period, c.period_start, nullif(c.period_end, 'epoch')) \
            FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[]) \
                AS c (user_id, feature_id, period, period_start, period_end)";
        let values: Vec<Value> = keys.values().into_iter().chain([ends.into()]).collect();
        self.run(sql, values).await.map(drop)
    }

    async fn lock(
        &mut self,
        keys: &[CounterKey],
        patience: LockPatience,
    ) -> Result<Vec<LockResult<CounterTally>>, StoreError> {
        let sql = with_patience(include_str!("../sql/lock_counters.sql"), patience);
        let mut columns = CounterKeyColumns::default();
        for key in keys {
            columns.add(key);
        }
        let rows: Vec<CounterRow> = self.read_all(&sql, columns.values()).await?;
        same_number(rows.len(), keys.len())?;
        let tally = |row: &CounterRow| CounterTally { used: row.used, reserved: row.reserved, overage: row.overage };
        let result = |row: CounterRow| lock_result(row.is_locked, row.is_held, || tally(&row));
        Ok(rows.into_iter().map(result).collect())
    }

    async fn record(&mut self, counters: &[CounterChange], entries: &[UsageEntry]) -> Result<(), StoreError> {
        let mut keys = CounterKeyColumns::default();
        for counter in counters {
            keys.add(&counter.key);
        }
        let tallies: [Value; 3] = [
            column(counters, |counter| counter.tally.used),
            column(counters, |counter| counter.tally.reserved),
            column(counters, |counter| counter.tally.overage),
        ];
        let mut columns = EntryColumns::default();
        for entry in entries {
            columns.add(entry);
        }
        let values: Vec<Value> = keys.values().into_iter().chain(tallies).chain(columns.values()).collect();
        self.run_last(include_str!("../sql/record_usage_batch.sql"), values).await
    }

    async fn delete_outcomes(&mut self, age: TimeDelta, rows_max: u64) -> Result<u64, StoreError> {
        let sql = "SELECT delete_usage_keys(make_interval(secs => $1), $2)";
        let deleted: Option<i64> = self.read_value(sql, [age.as_seconds_f64().into(), limit(rows_max)]).await?;
        Ok(deleted.and_then(|deleted| u64::try_from(deleted).ok()).unwrap_or_default())
    }
}

pub(super) fn meter_columns(meters: &[Meter]) -> Vec<Value> {
    vec![column(meters, |meter| meter.user_id.0), column(meters, |meter| meter.feature_id.to_string())]
}

pub(super) fn meter_states(rows: Vec<MeterRow>, meters: &[Meter]) -> Result<Vec<MeterState>, StoreError> {
    same_number(rows.len(), meters.len())?;
    rows.into_iter().zip(meters).map(|(row, meter)| meter_state(row, meter.user_id)).collect()
}

fn meter_state(row: MeterRow, user_id: UserId) -> Result<MeterState, StoreError> {
    let Some(facts) = row.facts else {
        return Ok(if row.user_known { MeterState::UnknownFeature } else { MeterState::UnknownUser });
    };
    let named = entitlement(user_id, facts)?;
    Ok(match (row.is_locked, row.is_held) {
        (true, _) => MeterState::Locked { kind: named.kind, entitlement: Locked::under_lock(named.entitlement) },
        (false, true) => MeterState::Busy,
        (false, false) => MeterState::Uncounted(named.entitlement.period),
    })
}

/// Runs after the counters are locked and in a statement of its own, so that it sees everything granted on them before.
async fn find_outcomes(work: &PgUnitOfWork, keys: &[KeyOfUser<'_>]) -> Result<Vec<(usize, StoredOutcome)>, StoreError> {
    let Some(first) = keys.first() else { return Ok(Vec::new()) };
    let (owners, texts): (Vec<Uuid>, Vec<String>) =
        keys.iter().map(|key| (key.user_id.0, key.key.as_str().to_owned())).unzip();
    let sql = include_str!("../sql/find_outcomes.sql");
    let found: Option<OutcomesRow> = work.read_one(sql, [owners.into(), texts.into()]).await?;
    let outcomes = found.and_then(|found| found.outcomes);
    outcomes.map_or_else(|| Ok(Vec::new()), |outcomes| stored_decisions::read_granted(outcomes, first.user_id))
}
