//! Audit: what was changed, by whom and why. Triggers write the rows, so a change made in SQL is recorded too.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::users::UserId;

/// One change. `old_values` and `new_values` are JSON objects as text; they never contain a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    pub id: Uuid,
    pub table_name: String,
    pub record_id: String,
    pub action: String,
    pub old_values: Option<String>,
    pub new_values: Option<String>,
    /// The user who ordered it; `None` for a change made by a database login.
    pub actor_id: Option<UserId>,
    pub reason: Option<String>,
    pub created_at: DateTime<Utc>,
}
