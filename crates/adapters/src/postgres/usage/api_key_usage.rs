//! The use of API keys on Postgres. Writes are sent with the commit, so they cost no message of their own.

use async_trait::async_trait;
use domain::usage::ApiKeyUsage;
use ports::store::{LockPatience, LockResult, StoreError};
use ports::usage::{ApiKeyUsageAddition, ApiKeyUsageChange, ApiKeyUsageRepository, ApiKeyWindow};
use sea_orm::{FromQueryResult, Value};

use super::super::store::PgUnitOfWork;
use super::columns::{column, lock_result, same_number, with_patience};

#[derive(FromQueryResult)]
struct KeyUsageRow {
    is_locked: bool,
    is_held: bool,
    requests: i64,
    tokens: i64,
    tokens_reserved: i64,
    cost_nano_usd: i64,
    cost_reserved_nano_usd: i64,
}

#[async_trait]
impl ApiKeyUsageRepository for PgUnitOfWork {
    async fn lock(
        &mut self,
        windows: &[ApiKeyWindow],
        patience: LockPatience,
    ) -> Result<Vec<LockResult<ApiKeyUsage>>, StoreError> {
        let sql = with_patience(include_str!("../sql/lock_keys.sql"), patience);
        let rows: Vec<KeyUsageRow> = self.read_all(&sql, window_columns(windows)).await?;
        same_number(rows.len(), windows.len())?;
        let usage = |row: &KeyUsageRow| ApiKeyUsage {
            requests: row.requests,
            tokens: row.tokens,
            tokens_held: row.tokens_reserved,
            cost: row.cost_nano_usd,
            cost_held: row.cost_reserved_nano_usd,
        };
        let result = |row: KeyUsageRow| lock_result(row.is_locked, row.is_held, || usage(&row));
        Ok(rows.into_iter().map(result).collect())
    }

    async fn open(&mut self, windows: &[ApiKeyWindow]) -> Result<(), StoreError> {
        self.run(include_str!("../sql/open_keys.sql"), window_columns(windows)).await.map(drop)
    }

    async fn save(&mut self, changes: &[ApiKeyUsageChange]) -> Result<(), StoreError> {
        let windows: Vec<ApiKeyWindow> = changes.iter().map(|change| change.window).collect();
        let usage: [Value; 5] = [
            column(changes, |change| change.usage.requests),
            column(changes, |change| change.usage.tokens),
            column(changes, |change| change.usage.tokens_held),
            column(changes, |change| change.usage.cost),
            column(changes, |change| change.usage.cost_held),
        ];
        let values: Vec<Value> = window_columns(&windows).into_iter().chain(usage).collect();
        self.run_last(include_str!("../sql/save_keys.sql"), values).await
    }

    async fn add(&mut self, additions: &[ApiKeyUsageAddition]) -> Result<(), StoreError> {
        let windows: Vec<ApiKeyWindow> = additions.iter().map(|addition| addition.window).collect();
        let sums: [Value; 3] = [
            column(additions, |addition| addition.requests),
            column(additions, |addition| addition.tokens),
            column(additions, |addition| addition.cost),
        ];
        let values: Vec<Value> = window_columns(&windows).into_iter().chain(sums).collect();
        self.run_last(include_str!("../sql/add_key_use.sql"), values).await
    }
}

fn window_columns(windows: &[ApiKeyWindow]) -> [Value; 3] {
    [
        column(windows, |window| window.api_key_id.0),
        column(windows, |window| window.kind.as_str().to_owned()),
        column(windows, |window| window.start),
    ]
}
