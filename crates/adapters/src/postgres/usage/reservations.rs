//! Reservations on Postgres.

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use domain::features::FeatureId;
use domain::usage::{Hold, HoldId, HoldStatus, PeriodKind};
use domain::users::UserId;
use ports::entitlements::Meter;
use ports::store::{LockPatience, LockResult, StoreError};
use ports::usage::{MeterState, ReservationChange, ReservationRepository, StoredReservation};
use sea_orm::prelude::Json;
use sea_orm::{FromQueryResult, Value};
use uuid::Uuid;

use super::super::rows::{inconsistent, limit};
use super::super::store::PgUnitOfWork;
use super::columns::{column, same_number, with_patience};
use super::counters::{LOCK_METERS, MeterRow, meter_columns, meter_states};
use super::{call_log, stored_decisions};

#[derive(FromQueryResult)]
struct ReservationRow {
    is_locked: bool,
    is_held: bool,
    #[sea_orm(nested)]
    facts: Option<ReservationFacts>,
}

#[derive(FromQueryResult)]
struct ReservationFacts {
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
struct DueRow {
    id: Uuid,
    user_id: Uuid,
}

#[async_trait]
impl ReservationRepository for PgUnitOfWork {
    async fn lock(
        &mut self,
        ids: &[HoldId],
        meters: &[Meter],
        patience: LockPatience,
    ) -> Result<(Vec<LockResult<Box<StoredReservation>>>, Vec<MeterState>), StoreError> {
        let of_reservations = with_patience(include_str!("../sql/lock_holds.sql"), patience);
        let ids_column = vec![column(ids, |id| id.0)];
        let (reservations, counters): (Vec<ReservationRow>, Vec<MeterRow>) = if meters.is_empty() {
            (self.read_all(&of_reservations, ids_column).await?, Vec::new())
        } else {
            let of_meters = with_patience(LOCK_METERS, patience);
            self.read_both((&of_reservations, ids_column), (&of_meters, meter_columns(meters))).await?
        };
        same_number(reservations.len(), ids.len())?;
        let reservations = reservations.into_iter().map(lock_result).collect::<Result<_, _>>()?;
        Ok((reservations, meter_states(counters, meters)?))
    }

    async fn save(&mut self, changes: &[ReservationChange]) -> Result<(), StoreError> {
        let values: [Value; 17] = [
            column(changes, |change| change.reservation.id.0),
            column(changes, |change| change.reservation.user_id.0),
            column(changes, |change| change.reservation.feature_id.to_string()),
            column(changes, |change| change.reservation.period_kind.as_str().to_owned()),
            column(changes, |change| change.reservation.period_start),
            column(changes, |change| change.reservation.amount),
            column(changes, |change| change.reservation.beyond),
            column(changes, |change| change.reservation.tokens),
            column(changes, |change| change.reservation.settled.unwrap_or(-1)),
            column(changes, |change| change.reservation.overage),
            column(changes, |change| change.reservation.status.as_str().to_owned()),
            column(changes, |change| {
                change.idempotency_key.as_ref().map(|key| key.as_str().to_owned()).unwrap_or_default()
            }),
            column(changes, |change| change.reservation.api_key_id.unwrap_or_default()),
            column(changes, |change| change.reservation.expires_at),
            column(changes, |change| stored_decisions::written(change.outcome.as_ref())),
            column(changes, |change| call_log::phase_of(&change.reservation).to_owned()),
            column(changes, |change| call_log::terms_of(&change.reservation)),
        ];
        self.run_last(include_str!("../sql/save_holds.sql"), values).await
    }

    async fn list_due(&mut self, excluded: &[HoldId], rows_max: u64) -> Result<Vec<(HoldId, UserId)>, StoreError> {
        let sql = "SELECT id, user_id FROM usage_reservations \
            WHERE status = 'pending' AND expires_at <= now() AND phase = 'reserved' AND id <> ALL ($1) \
            ORDER BY expires_at, id LIMIT $2";
        let due: Vec<DueRow> = self.read_all(sql, [column(excluded, |id| id.0), limit(rows_max)]).await?;
        Ok(due.into_iter().map(|row| (HoldId(row.id), UserId(row.user_id))).collect())
    }

    async fn delete_ended(&mut self, age: TimeDelta, rows_max: u64) -> Result<u64, StoreError> {
        let sql = "DELETE FROM usage_reservations WHERE ctid = ANY (ARRAY( \
                SELECT ctid FROM usage_reservations WHERE status <> 'pending' AND updated_at < now() - make_interval(secs => $1) \
                ORDER BY updated_at LIMIT $2 FOR UPDATE SKIP LOCKED \
            ))";
        self.run(sql, [age.as_seconds_f64().into(), limit(rows_max)]).await
    }
}

fn lock_result(row: ReservationRow) -> Result<LockResult<Box<StoredReservation>>, StoreError> {
    let facts = match (row.is_locked, row.is_held, row.facts) {
        (true, _, Some(facts)) => facts,
        (false, true, _) => return Ok(LockResult::Busy),
        _ => return Ok(LockResult::Missing),
    };
    let id = HoldId(facts.id);
    let unfit = || inconsistent("usage_reservations", id.0);
    let reservation = Hold {
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
        call: facts.detail.map(|detail| call_log::reserved_call(id, &facts.phase, detail)).transpose()?.map(Box::new),
    };
    let outcome = facts.outcome.map(|outcome| stored_decisions::read(outcome, id)).transpose()?;
    Ok(LockResult::Locked(Box::new(StoredReservation { reservation, is_due: facts.is_due, outcome })))
}
