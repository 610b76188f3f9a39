//! Maintenance on Postgres: what a job or an operator asks for, not a request.
//!
//! Costs: `state` is two round trips; the other two are one statement each over whole tables, after one that gives
//! this transaction more time than a request has.

use async_trait::async_trait;
use domain::maintenance::IntegrityFinding;
use ports::maintenance::{DatabaseState, MaintenanceRepository};
use ports::store::StoreError;
use sea_orm::FromQueryResult;
use tracing::info;

use super::rows::limit;
use super::store::PgUnitOfWork;

/// How long a statement over whole tables may take.
const WHOLE_TABLES_MS: u64 = 300_000;

/// More steps than a schema will ever have.
const STEPS_MAX: u64 = 10_000;

#[derive(FromQueryResult)]
struct FindingRow {
    finding: String,
    subject: String,
    detail: String,
}

#[derive(FromQueryResult)]
struct StateRow {
    excess_rights: Vec<String>,
    unsafe_settings: Vec<String>,
    size_bytes: i64,
    connections: i64,
    connections_max: i64,
}

#[async_trait]
impl MaintenanceRepository for PgUnitOfWork {
    async fn list_findings(&mut self, rows_max: u64) -> Result<Vec<IntegrityFinding>, StoreError> {
        self.transaction.allow(WHOLE_TABLES_MS).await?;
        let sql = "SELECT finding, subject, detail FROM integrity_findings() LIMIT $1";
        let rows: Vec<FindingRow> = self.read_all(sql, [limit(rows_max)]).await?;
        let finding =
            |row: FindingRow| IntegrityFinding { finding: row.finding, subject: row.subject, detail: row.detail };
        Ok(rows.into_iter().map(finding).collect())
    }

    async fn state(&mut self) -> Result<DatabaseState, StoreError> {
        let steps = "SELECT version FROM seaql_migrations ORDER BY version LIMIT $1";
        let applied_steps = self.read_values(steps, [limit(STEPS_MAX)]).await?;
        let row: Option<StateRow> = self.read_one(include_str!("sql/database_state.sql"), []).await?;
        let row = row.ok_or_else(|| StoreError::Unexpected("the database does not know its own login".into()))?;
        Ok(DatabaseState {
            applied_steps,
            excess_rights: row.excess_rights,
            unsafe_settings: row.unsafe_settings,
            size_bytes: row.size_bytes,
            connections: row.connections,
            connections_max: row.connections_max,
        })
    }

    async fn maintain_partitions(&mut self) -> Result<(), StoreError> {
        self.transaction.allow(WHOLE_TABLES_MS).await?;
        let done: Vec<String> = self.read_values("SELECT * FROM maintain_partitions()", []).await?;
        for line in done {
            info!(%line, "partitions were maintained");
        }
        Ok(())
    }
}
