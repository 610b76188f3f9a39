//! Maintenance: checks of the data, and what the readiness of the service rests on.

use async_trait::async_trait;
use domain::maintenance::IntegrityFinding;

use crate::store::StoreError;

/// The state of the database as `/readyz` and `/metrics` show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseState {
    /// Schema steps that were applied, oldest first.
    pub applied_steps: Vec<String>,
    /// Rights of the login that it should not have, by its attributes, its memberships and what it owns.
    pub excess_rights: Vec<String>,
    /// Settings of the server under which what was answered may be lost in a crash of the machine.
    pub unsafe_settings: Vec<String>,
    pub size_bytes: i64,
    pub connections: i64,
    pub connections_max: i64,
}

#[async_trait]
pub trait MaintenanceRepository: Send {
    /// At most `limit` findings of the regular checks.
    async fn list_findings(&mut self, limit: u64) -> Result<Vec<IntegrityFinding>, StoreError>;
    async fn state(&mut self) -> Result<DatabaseState, StoreError>;
    /// Makes the partitions of the coming months and drops those past their retention.
    async fn maintain_partitions(&mut self) -> Result<(), StoreError>;
}
