//! Audit: what was changed, by whom and why, for operators to read.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::audit::AuditEntry;
use ports::audit::AuditFilter;
use ports::store::{Page, Scope, Store, StoreError};
use uuid::Uuid;

pub struct AuditService {
    pub store: Arc<dyn Store>,
}

impl AuditService {
    /// Newest first.
    pub async fn list(
        &self,
        filter: &AuditFilter,
        after: Option<(DateTime<Utc>, Uuid)>,
        limit: u64,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let entries = work.audit().list(filter, &Page { after, limit }).await?;
        work.commit().await?;
        Ok(entries)
    }
}
