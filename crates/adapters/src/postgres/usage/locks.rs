//! Locks: reads the rows of a batch under their locks.

use chrono::{DateTime, Utc};
use domain::features::FeatureId;
use domain::usage::{CounterTally, Hold, HoldId, HoldStatus, PeriodKind};
use domain::users::UserId;
use ports::entitlements::Meter;
use ports::store::{Locked, StoreError};
use ports::usage::{
    CounterKey, CounterState, HoldState, KeptOutcome, KeyOfUser, LockPatience, LockedBatch, MeterState,
};
use sea_orm::prelude::Json;
use sea_orm::{FromQueryResult, Value};
use uuid::Uuid;

use super::super::entitlements::{EntitlementRow, entitlement};
use super::super::rows::inconsistent;
use super::super::store::PgUnitOfWork;
use super::writes::column;
use super::{calls, stored_decisions};

const LOCK_METERS: &str = include_str!("../sql/lock_usage_batch.sql");
const LOCK_HOLDS: &str = include_str!("../sql/lock_holds.sql");

#[derive(FromQueryResult)]
struct MeterRow {
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
struct HoldRow {
    is_locked: bool,
    is_held: bool,
    #[sea_orm(nested)]
    facts: Option<HoldFacts>,
}

#[derive(FromQueryResult)]
struct HoldFacts {
    id: Uuid,
    user_id: Uuid,
    feature_id: String,
    period: String,
    period_start: DateTime<Utc>,
    amount: i64,
    beyond: i64,
    tokens_reserved: i64,
    settled_amount: Option<i64>,
    overage: i64,
    status: String,
    api_key_id: Option<Uuid>,
    expires_at: DateTime<Utc>,
    outcome: Option<Json>,
    phase: String,
    detail: Option<Json>,
    is_due: bool,
}

#[derive(FromQueryResult)]
struct CounterRow {
    is_locked: bool,
    is_held: bool,
    used: i64,
    reserved: i64,
    overage: i64,
}

/// The statement that skips locked rows, or the one that waits for them.
pub(super) fn with_patience(sql: &str, patience: LockPatience) -> String {
    match patience {
        LockPatience::Skip => sql.to_owned(),
        LockPatience::Wait => sql.replace(" SKIP LOCKED", ""),
    }
}

pub(super) async fn lock_batch(
    work: &PgUnitOfWork,
    meters: &[Meter],
    keys: &[KeyOfUser<'_>],
    patience: LockPatience,
) -> Result<LockedBatch, StoreError> {
    let sql = with_patience(LOCK_METERS, patience);
    let rows: Vec<MeterRow> = work.read_all(&sql, meter_columns(meters)).await?;
    Ok(LockedBatch { meters: meter_states(rows, meters)?, kept: find_outcomes(work, keys).await? })
}

fn meter_columns(meters: &[Meter]) -> Vec<Value> {
    vec![column(meters, |meter| meter.user_id.0), column(meters, |meter| meter.feature_id.to_string())]
}

fn meter_states(rows: Vec<MeterRow>, meters: &[Meter]) -> Result<Vec<MeterState>, StoreError> {
    same_number(rows.len(), meters.len())?;
    rows.into_iter().zip(meters).map(|(row, meter)| meter_state(row, meter.user_id)).collect()
}

/// Runs after the counters are locked and in a statement of its own, so that it sees everything granted on them before.
async fn find_outcomes(work: &PgUnitOfWork, keys: &[KeyOfUser<'_>]) -> Result<Vec<(usize, KeptOutcome)>, StoreError> {
    let Some(first) = keys.first() else { return Ok(Vec::new()) };
    let (owners, texts): (Vec<Uuid>, Vec<String>) =
        keys.iter().map(|key| (key.user_id.0, key.key.as_str().to_owned())).unzip();
    let sql = include_str!("../sql/find_outcomes.sql");
    let found: Option<OutcomesRow> = work.read_one(sql, [owners.into(), texts.into()]).await?;
    let outcomes = found.and_then(|found| found.outcomes);
    outcomes.map_or_else(|| Ok(Vec::new()), |outcomes| stored_decisions::read_kept(outcomes, first.user_id))
}

pub(super) async fn lock_holds(
    work: &PgUnitOfWork,
    ids: &[HoldId],
    meters: &[Meter],
    patience: LockPatience,
) -> Result<(Vec<HoldState>, Vec<MeterState>), StoreError> {
    let of_holds = (&*with_patience(LOCK_HOLDS, patience), vec![column(ids, |id| id.0)]);
    let (holds, counters): (Vec<HoldRow>, Vec<MeterRow>) = if meters.is_empty() {
        (work.read_all(of_holds.0, of_holds.1).await?, Vec::new())
    } else {
        let of_meters = (&*with_patience(LOCK_METERS, patience), meter_columns(meters));
        work.read_both(of_holds, of_meters).await?
    };
    same_number(holds.len(), ids.len())?;
    let holds = holds.into_iter().map(hold_state).collect::<Result<_, _>>()?;
    Ok((holds, meter_states(counters, meters)?))
}

pub(super) async fn lock_counters(
    work: &PgUnitOfWork,
    keys: &[CounterKey],
    patience: LockPatience,
) -> Result<Vec<CounterState>, StoreError> {
    let sql = with_patience(include_str!("../sql/lock_counters.sql"), patience);
    let users: Vec<Uuid> = keys.iter().map(|key| key.meter.user_id.0).collect();
    let features: Vec<String> = keys.iter().map(|key| key.meter.feature_id.to_string()).collect();
    let periods: Vec<String> = keys.iter().map(|key| key.period_kind.as_str().to_owned()).collect();
    let starts: Vec<DateTime<Utc>> = keys.iter().map(|key| key.period_start).collect();
    let values = [users.into(), features.into(), periods.into(), starts.into()];
    let rows: Vec<CounterRow> = work.read_all(&sql, values).await?;
    same_number(rows.len(), keys.len())?;
    let state = |row: CounterRow| match (row.is_locked, row.is_held) {
        (true, _) => {
            let tally = CounterTally { used: row.used, reserved: row.reserved, overage: row.overage };
            CounterState::Locked(Locked::under_lock(tally))
        }
        (false, true) => CounterState::Busy,
        (false, false) => CounterState::Missing,
    };
    Ok(rows.into_iter().map(state).collect())
}

pub(super) fn same_number(answered: usize, asked: usize) -> Result<(), StoreError> {
    if answered == asked {
        return Ok(());
    }
    Err(StoreError::Unexpected(format!("a batch asked for {asked} rows and was answered with {answered}")))
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

fn hold_state(row: HoldRow) -> Result<HoldState, StoreError> {
    let facts = match (row.is_locked, row.is_held, row.facts) {
        (true, _, Some(facts)) => facts,
        (false, true, _) => return Ok(HoldState::Busy),
        _ => return Ok(HoldState::Unknown),
    };
    let id = HoldId(facts.id);
    let unfit = || inconsistent("usage_reservations", id.0);
    let hold = Hold {
        id,
        user_id: UserId(facts.user_id),
        feature_id: FeatureId::parse(&facts.feature_id).map_err(|_| unfit())?,
        period_kind: facts.period.parse::<PeriodKind>().map_err(|_| unfit())?,
        period_start: facts.period_start,
        amount: facts.amount,
        beyond: facts.beyond,
        tokens: facts.tokens_reserved,
        status: facts.status.parse::<HoldStatus>().map_err(|_| unfit())?,
        settled: facts.settled_amount,
        overage: facts.overage,
        expires_at: facts.expires_at,
        api_key_id: facts.api_key_id,
        call: facts.detail.map(|detail| calls::held_call(id, &facts.phase, detail)).transpose()?.map(Box::new),
    };
    let outcome = facts.outcome.map(|outcome| stored_decisions::read(outcome, id)).transpose()?;
    Ok(HoldState::Locked { hold: Box::new(Locked::under_lock(hold)), is_due: facts.is_due, outcome })
}
