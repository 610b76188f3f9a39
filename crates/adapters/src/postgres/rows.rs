//! How the rooms put a statement to Postgres and read its rows. One call is one statement.

use std::fmt::Display;

use ports::store::StoreError;
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult, Statement, TryGetable, Value};

use super::error::store_error;
use super::store::PgUnitOfWork;

/// What a room reads must be what the domain allows; where it is not, the row is named and nothing of it told.
pub(super) fn inconsistent(table: &'static str, key: impl Display) -> StoreError {
    StoreError::Inconsistent { table, key: key.to_string() }
}

/// A bound as Postgres takes it.
pub(super) fn limit(rows: u64) -> Value {
    i64::try_from(rows).unwrap_or(i64::MAX).into()
}

fn statement(sql: &str, values: impl IntoIterator<Item = Value>) -> Statement {
    Statement::from_sql_and_values(DbBackend::Postgres, sql, values)
}

impl PgUnitOfWork {
    pub(super) async fn read_all<R: FromQueryResult + Send + Sync>(
        &self,
        sql: &str,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<R>, StoreError> {
        R::find_by_statement(statement(sql, values)).all(&self.transaction).await.map_err(|error| store_error(&error))
    }

    pub(super) async fn read_one<R: FromQueryResult + Send + Sync>(
        &self,
        sql: &str,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Option<R>, StoreError> {
        R::find_by_statement(statement(sql, values)).one(&self.transaction).await.map_err(|error| store_error(&error))
    }

    /// The first column of the first row.
    pub(super) async fn read_value<T: TryGetable>(
        &self,
        sql: &str,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Option<T>, StoreError> {
        let row = self.transaction.query_one_raw(statement(sql, values)).await.map_err(|error| store_error(&error))?;
        row.map(|row| row.try_get_by_index(0)).transpose().map_err(|error| store_error(&error))
    }

    /// The first column of every row.
    pub(super) async fn read_values<T: TryGetable>(
        &self,
        sql: &str,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<T>, StoreError> {
        let rows = self.transaction.query_all_raw(statement(sql, values)).await.map_err(|error| store_error(&error))?;
        rows.iter().map(|row| row.try_get_by_index(0)).collect::<Result<_, _>>().map_err(|error| store_error(&error))
    }

    /// Runs a statement after which nothing is asked but the commit, which may tell of its failure instead.
    pub(super) async fn run_last(&self, sql: &str, values: impl IntoIterator<Item = Value>) -> Result<(), StoreError> {
        self.transaction.run_last(statement(sql, values)).await.map_err(|error| store_error(&error))
    }

    /// Runs a statement and says how many rows it wrote.
    pub(super) async fn run(&self, sql: &str, values: impl IntoIterator<Item = Value>) -> Result<u64, StoreError> {
        let outcome =
            self.transaction.execute_raw(statement(sql, values)).await.map_err(|error| store_error(&error))?;
        Ok(outcome.rows_affected())
    }
}
