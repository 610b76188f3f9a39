//! The repository: each method of the port, on one open transaction.

use async_trait::async_trait;
use chrono::TimeDelta;
use domain::usage::{HoldId, Period};
use domain::users::UserId;
use ports::entitlements::Meter;
use ports::store::StoreError;
use ports::usage::{
    ApiKeyWindow, BatchRecord, CounterKey, CounterState, DueCall, HoldState, KeyOfUser, KeyState, LockPatience,
    LockedBatch, MeterState, SessionLock, TokenChange, UsageRepository,
};
use sea_orm::FromQueryResult;
use uuid::Uuid;

use super::super::rows::limit;
use super::super::store::PgUnitOfWork;
use super::{calls, locks, writes};

#[derive(FromQueryResult)]
struct DueHold {
    id: Uuid,
    user_id: Uuid,
}

#[async_trait]
impl UsageRepository for PgUnitOfWork {
    async fn lock_batch(
        &mut self,
        meters: &[Meter],
        keys: &[KeyOfUser<'_>],
        patience: LockPatience,
    ) -> Result<LockedBatch, StoreError> {
        locks::lock_batch(self, meters, keys, patience).await
    }

    async fn open_counters(&mut self, counters: &[(Meter, Period)]) -> Result<(), StoreError> {
        writes::open_counters(self, counters).await
    }

    async fn lock_holds(
        &mut self,
        ids: &[HoldId],
        meters: &[Meter],
        patience: LockPatience,
    ) -> Result<(Vec<HoldState>, Vec<MeterState>), StoreError> {
        locks::lock_holds(self, ids, meters, patience).await
    }

    async fn lock_counters(
        &mut self,
        keys: &[CounterKey],
        patience: LockPatience,
    ) -> Result<Vec<CounterState>, StoreError> {
        locks::lock_counters(self, keys, patience).await
    }

    async fn record_batch(&mut self, record: &BatchRecord) -> Result<(), StoreError> {
        writes::record_batch(self, record).await
    }

    async fn move_tokens(&mut self, change: &TokenChange) -> Result<(), StoreError> {
        writes::move_tokens(self, change).await
    }

    async fn lock_keys(
        &mut self,
        windows: &[ApiKeyWindow],
        patience: LockPatience,
    ) -> Result<Vec<KeyState>, StoreError> {
        calls::lock_keys(self, windows, patience).await
    }

    async fn open_keys(&mut self, windows: &[ApiKeyWindow]) -> Result<(), StoreError> {
        calls::open_keys(self, windows).await
    }

    async fn wait_for_locks(&mut self) -> Result<(), StoreError> {
        let sql = "SELECT set_config('lock_timeout', $1, true)";
        self.run_last(sql, [self.transaction.lock_ms().to_string().into()]).await
    }

    async fn lock_sessions(&mut self, ids: &[Uuid], patience: LockPatience) -> Result<Vec<SessionLock>, StoreError> {
        calls::lock_sessions(self, ids, patience).await
    }

    async fn list_due_calls(&mut self, excluded: &[HoldId], rows_max: u64) -> Result<Vec<DueCall>, StoreError> {
        calls::list_due_calls(self, excluded, rows_max).await
    }

    async fn list_due_holds(
        &mut self,
        excluded: &[HoldId],
        rows_max: u64,
    ) -> Result<Vec<(HoldId, UserId)>, StoreError> {
        let sql = "SELECT id, user_id FROM usage_reservations \
            WHERE status = 'pending' AND expires_at <= now() AND phase = 'reserved' AND id <> ALL ($1) \
            ORDER BY expires_at, id LIMIT $2";
        let due: Vec<DueHold> = self.read_all(sql, [writes::column(excluded, |id| id.0), limit(rows_max)]).await?;
        Ok(due.into_iter().map(|hold| (HoldId(hold.id), UserId(hold.user_id))).collect())
    }

    async fn delete_outcomes(&mut self, age: TimeDelta, rows_max: u64) -> Result<u64, StoreError> {
        let sql = "SELECT delete_usage_keys(make_interval(secs => $1), $2)";
        let deleted: Option<i64> = self.read_value(sql, [age.as_seconds_f64().into(), limit(rows_max)]).await?;
        Ok(deleted.and_then(|deleted| u64::try_from(deleted).ok()).unwrap_or_default())
    }

    async fn delete_ended_reservations(&mut self, age: TimeDelta, rows_max: u64) -> Result<u64, StoreError> {
        let sql = "DELETE FROM usage_reservations WHERE ctid = ANY (ARRAY( \
                SELECT ctid FROM usage_reservations WHERE status <> 'pending' AND updated_at < now() - make_interval(secs => $1) \
                ORDER BY updated_at LIMIT $2 FOR UPDATE SKIP LOCKED \
            ))";
        self.run(sql, [age.as_seconds_f64().into(), limit(rows_max)]).await
    }
}
