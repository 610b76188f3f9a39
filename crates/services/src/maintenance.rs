//! Maintenance: the regular checks, the partitions, and the state that readiness and metrics show.

use std::sync::Arc;

use domain::maintenance::IntegrityFinding;
use ports::maintenance::DatabaseState;
use ports::store::{Scope, Store, StoreError};

/// How many findings are shown at most; a database with more has one cause for many of them.
pub const FINDINGS_MAX: u64 = 1_000;

pub struct MaintenanceService {
    pub store: Arc<dyn Store>,
}

impl MaintenanceService {
    pub async fn find_integrity_problems(&self) -> Result<Vec<IntegrityFinding>, StoreError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let findings = work.maintenance().list_findings(FINDINGS_MAX).await?;
        work.commit().await?;
        Ok(findings)
    }

    pub async fn state(&self) -> Result<DatabaseState, StoreError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let state = work.maintenance().state().await?;
        work.commit().await?;
        Ok(state)
    }

    pub async fn maintain_partitions(&self) -> Result<(), StoreError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        work.maintenance().maintain_partitions().await?;
        work.commit().await
    }
}
