//! Maintenance on Postgres: work of jobs and operators, not of requests.
//!
//! Costs: `state` is two round trips; `list_findings` reads whole tables, a piece of the checks a sixteenth of the
//! users; both need a prior call that raises this transaction's time limit. `read_integrity` reads 18 rows.
//! Locks: a piece of work on partitions locks one table, and waits up to 300 ms for it.

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use domain::maintenance::{IntegrityFinding, IntegrityReport};
use ports::maintenance::{DatabaseState, MaintenanceRepository, PartitionWork};
use ports::store::StoreError;
use sea_orm::FromQueryResult;

use super::rows::limit;
use super::store::PgUnitOfWork;

/// Time limit of a statement over whole tables.
const WHOLE_TABLES_MS: u64 = 300_000;

/// Time limit of a piece of the checks or of the work on partitions.
const PIECE_MS: u64 = 60_000;

/// More migration steps than a schema will ever have.
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

fn finding(row: FindingRow) -> IntegrityFinding {
    IntegrityFinding { finding: row.finding, subject: row.subject, detail: row.detail }
}

#[async_trait]
impl MaintenanceRepository for PgUnitOfWork {
    async fn list_findings(&mut self, rows_max: u64) -> Result<Vec<IntegrityFinding>, StoreError> {
        self.transaction.allow(WHOLE_TABLES_MS).await?;
        let sql = "SELECT finding, subject, detail FROM integrity_findings() LIMIT $1";
        let rows: Vec<FindingRow> = self.read_all(sql, [limit(rows_max)]).await?;
        Ok(rows.into_iter().map(finding).collect())
    }

    async fn read_integrity(&mut self, rows_max: u64) -> Result<IntegrityReport, StoreError> {
        let sql = "SELECT f.was ->> 'finding' AS finding, f.was ->> 'subject' AS subject, f.was ->> 'detail' AS detail \
            FROM integrity_pieces AS p CROSS JOIN LATERAL jsonb_array_elements(p.findings) AS f (was) ORDER BY p.name LIMIT $1";
        let rows: Vec<FindingRow> = self.read_all(sql, [limit(rows_max)]).await?;
        let sql = "SELECT CASE WHEN bool_and(checked_at IS NOT NULL) THEN min(checked_at) END FROM integrity_pieces";
        let checked_at: Option<Option<DateTime<Utc>>> = self.read_value(sql, []).await?;
        Ok(IntegrityReport { findings: rows.into_iter().map(finding).collect(), checked_at: checked_at.flatten() })
    }

    async fn claim_integrity_piece(&mut self, before: DateTime<Utc>) -> Result<Option<String>, StoreError> {
        let claimed: Option<Option<String>> =
            self.read_value("SELECT claim_integrity_piece($1)", [before.into()]).await?;
        Ok(claimed.flatten())
    }

    async fn check_integrity_piece(&mut self, piece: &str, budget: TimeDelta) -> Result<i64, StoreError> {
        self.transaction.allow(PIECE_MS).await?;
        let sql = "SELECT check_integrity_piece($1, make_interval(secs => $2))";
        Ok(self.read_value(sql, [piece.into(), budget.as_seconds_f64().into()]).await?.unwrap_or_default())
    }

    async fn state(&mut self) -> Result<DatabaseState, StoreError> {
        let steps = "SELECT version FROM product_base_migrations WHERE parts_done IS NULL ORDER BY version LIMIT $1";
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

    async fn maintain_partitions(&mut self) -> Result<PartitionWork, StoreError> {
        self.transaction.allow(PIECE_MS).await?;
        let lines: Vec<String> = self.read_values("SELECT * FROM maintain_partitions()", []).await?;
        Ok(match lines.into_iter().next() {
            None => PartitionWork::NothingLeft,
            Some(line) if line.starts_with("busy") => PartitionWork::Busy(line),
            Some(line) => PartitionWork::Done(line),
        })
    }
}
