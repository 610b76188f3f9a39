//! Maintenance: the regular checks, the partitions, and the state that readiness and metrics show.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::maintenance::IntegrityReport;
use ports::maintenance::{DatabaseState, PartitionWork};
use ports::store::{Scope, Store, StoreError};
use tokio::time::Instant;
use tracing::{info, warn};

/// How many findings are shown at most; a database with more has one cause for many of them.
pub const FINDINGS_MAX: u64 = 1_000;

/// How long one piece of the checks may make and compare the seals of usage (`usage_seals`).
const PIECE_BUDGET: Duration = Duration::from_secs(20);

/// The pause before a table that is in use is tried again.
const BUSY_PAUSE: Duration = Duration::from_secs(2);

pub struct MaintenanceService {
    pub store: Arc<dyn Store>,
}

impl MaintenanceService {
    /// Checks the pieces that no process has tried for `due_after`, until `patience` is over, and returns the stored
    /// findings of all of them. A piece that fails is logged, and is due again with the others.
    pub async fn check_integrity(
        &self,
        due_after: TimeDelta,
        patience: Duration,
    ) -> Result<IntegrityReport, StoreError> {
        let began = Instant::now();
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let before = work.usage_history().now().await? - due_after;
        work.commit().await?;
        while began.elapsed() < patience {
            let Some(piece) = self.claim_integrity_piece(before).await? else { break };
            let left = patience.saturating_sub(began.elapsed());
            if let Err(error) = self.check_integrity_piece(&piece, left).await {
                warn!(%piece, %error, "a piece of the integrity checks failed; what it found before stays");
            }
        }
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let report = work.maintenance().read_integrity(FINDINGS_MAX).await?;
        work.commit().await?;
        Ok(report)
    }

    async fn claim_integrity_piece(&self, before: DateTime<Utc>) -> Result<Option<String>, StoreError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let piece = work.maintenance().claim_integrity_piece(before).await?;
        work.commit().await?;
        Ok(piece)
    }

    async fn check_integrity_piece(&self, piece: &str, left: Duration) -> Result<(), StoreError> {
        let budget = TimeDelta::from_std(left.min(PIECE_BUDGET)).unwrap_or_default();
        let mut work = self.store.begin(Scope::SERVICE).await?;
        work.maintenance().check_integrity_piece(piece, budget).await?;
        work.commit().await
    }

    pub async fn state(&self) -> Result<DatabaseState, StoreError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let state = work.maintenance().state().await?;
        work.commit().await?;
        Ok(state)
    }

    /// Maintains the partitions piece by piece, each in a transaction of its own, until nothing is left or `patience`
    /// is over. A table in use is tried again after a pause.
    pub async fn maintain_partitions(&self, patience: Duration) -> Result<(), StoreError> {
        let began = Instant::now();
        let mut busy = None;
        while began.elapsed() < patience {
            let mut work = self.store.begin(Scope::SERVICE).await?;
            let piece = work.maintenance().maintain_partitions().await?;
            work.commit().await?;
            match piece {
                PartitionWork::Done(line) => info!(%line, "partitions were maintained"),
                PartitionWork::NothingLeft => return Ok(()),
                PartitionWork::Busy(line) => {
                    busy = Some(line);
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
            }
        }
        warn!(busy = busy.as_deref().unwrap_or("nothing"), "work on partitions is left for the next run");
        Ok(())
    }
}
