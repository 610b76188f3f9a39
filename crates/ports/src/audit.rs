//! Audit: reading the trail. It is written by triggers.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::audit::AuditEntry;
use domain::users::UserId;
use uuid::Uuid;

use crate::store::{Page, StoreError};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    pub table_name: Option<String>,
    pub record_id: Option<String>,
    pub actor_id: Option<UserId>,
}

#[async_trait]
pub trait AuditRepository: Send {
    /// Newest first.
    async fn list(
        &mut self,
        filter: &AuditFilter,
        page: &Page<(DateTime<Utc>, Uuid)>,
    ) -> Result<Vec<AuditEntry>, StoreError>;
}
