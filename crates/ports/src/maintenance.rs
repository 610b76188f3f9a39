//! Maintenance: checks of the data, and the state that the service's readiness depends on.

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use domain::maintenance::{IntegrityFinding, IntegrityReport};

use crate::store::StoreError;

/// The state of the database as `/readyz` and `/metrics` show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseState {
    /// Schema steps that were applied, oldest first.
    pub applied_steps: Vec<String>,
    /// Rights of the login that it should not have, by its attributes, its memberships and what it owns.
    pub excess_rights: Vec<String>,
    /// Settings of the server under which committed work may be lost in a crash of the machine.
    pub unsafe_settings: Vec<String>,
    pub size_bytes: i64,
    pub connections: i64,
    pub connections_max: i64,
}

/// The result of one piece of work on partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionWork {
    /// A line about what was done.
    Done(String),
    /// A line about the tables that are in use; they are tried again later.
    Busy(String),
    /// There is nothing to do, or another process does it.
    NothingLeft,
}

#[async_trait]
pub trait MaintenanceRepository: Send {
    /// At most `limit` findings of all checks, run now over whole tables.
    async fn list_findings(&mut self, limit: u64) -> Result<Vec<IntegrityFinding>, StoreError>;
    /// At most `limit` of the findings that the pieces of the checks have stored.
    async fn read_integrity(&mut self, limit: u64) -> Result<IntegrityReport, StoreError>;
    /// Claims the piece of the checks that was not tried for the longest time, of those not tried since `before`;
    /// `None` where there is none. A claim counts once it is committed, for every process.
    async fn claim_integrity_piece(&mut self, before: DateTime<Utc>) -> Result<Option<String>, StoreError>;
    /// Checks one piece, for about as long as `budget`, and stores the findings; returns how many.
    async fn check_integrity_piece(&mut self, piece: &str, budget: TimeDelta) -> Result<i64, StoreError>;
    async fn state(&mut self) -> Result<DatabaseState, StoreError>;
    /// Does one piece of the work on partitions (coming months are created, those past their retention summed and
    /// dropped).
    async fn maintain_partitions(&mut self) -> Result<PartitionWork, StoreError>;
}
