//! How the rooms run statements on Postgres and read their rows. One call is one statement.

use std::fmt::Display;

use ports::store::StoreError;
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult, QueryResult, Statement, TryGetable, Value};

use super::error::store_error;
use super::store::PgUnitOfWork;

/// The error for a row that the domain does not allow. It names the row and none of its values.
pub(super) fn inconsistent(table: &'static str, key: impl Display) -> StoreError {
    StoreError::Inconsistent { table, key: key.to_string() }
}

/// A row limit as Postgres takes it.
pub(super) fn limit(rows: u64) -> Value {
    i64::try_from(rows).unwrap_or(i64::MAX).into()
}

fn statement(sql: &str, values: impl IntoIterator<Item = Value>) -> Statement {
    Statement::from_sql_and_values(DbBackend::Postgres, sql, values)
}

fn rows<R: FromQueryResult>(read: &[QueryResult]) -> Result<Vec<R>, StoreError> {
    read.iter().map(|row| R::from_query_result(row, "")).collect::<Result<_, _>>().map_err(|error| store_error(&error))
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

    /// The rows of two statements run one after the other, in one message where possible.
    pub(super) async fn read_both<A: FromQueryResult, B: FromQueryResult>(
        &self,
        first: (&str, Vec<Value>),
        second: (&str, Vec<Value>),
    ) -> Result<(Vec<A>, Vec<B>), StoreError> {
        let statements = [first, second].map(|(sql, values)| statement(sql, values)).into();
        let read = self.transaction.query_together(statements).await.map_err(|error| store_error(&error))?;
        let mut read = read.into_iter();
        let (first, second) = (read.next().unwrap_or_default(), read.next().unwrap_or_default());
        Ok((rows(&first)?, rows(&second)?))
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

    /// Runs the last statement before the commit. The commit may report its failure instead.
    pub(super) async fn run_last(&self, sql: &str, values: impl IntoIterator<Item = Value>) -> Result<(), StoreError> {
        self.transaction.run_last(statement(sql, values)).await.map_err(|error| store_error(&error))
    }

    /// Runs a statement with bound values only. Users' text is never part of a statement's text, which Postgres writes
    /// to its log on failure.
    pub(super) async fn run_bound(&self, sql: &str, values: impl IntoIterator<Item = Value>) -> Result<(), StoreError> {
        self.transaction.run_bound(statement(sql, values)).await.map_err(|error| store_error(&error))
    }

    /// Runs a statement and returns the number of written rows.
    pub(super) async fn run(&self, sql: &str, values: impl IntoIterator<Item = Value>) -> Result<u64, StoreError> {
        let outcome =
            self.transaction.execute_raw(statement(sql, values)).await.map_err(|error| store_error(&error))?;
        Ok(outcome.rows_affected())
    }
}
