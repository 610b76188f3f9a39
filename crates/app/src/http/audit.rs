//! Audit: the trail of changes, for operators.

use actix_web::web::{Data, Json};
use chrono::{DateTime, Utc};
use domain::audit::AuditEntry;
use domain::users::UserId;
use ports::audit::AuditFilter;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use services::audit::AuditService;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use validator::Validate;

use super::caller::{PermittedCaller, ReadAudit};
use super::pages::{PageQuery, PageView};
use super::problem::Problem;
use super::spawn::detached;
use super::validation::ValidQuery;

#[derive(Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Only changes of this table.
    #[validate(length(max = 63))]
    #[param(max_length = 63)]
    table_name: Option<String>,
    /// Only changes of this record: a user's id, a plan's, `plan:feature`.
    #[validate(length(max = 200))]
    #[param(max_length = 200)]
    record_id: Option<String>,
    /// Only changes made by this user.
    actor_id: Option<Uuid>,
    /// How many rows to show; 20 by default.
    #[validate(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u64>,
    /// `next_cursor` of the previous page.
    #[validate(length(max = 100))]
    #[param(pattern = r"^[0-9]{1,16}_[0-9a-f]{32}$")]
    cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct AuditEntryView {
    pub id: Uuid,
    #[schema(example = "users")]
    pub table_name: String,
    pub record_id: String,
    #[schema(example = "plan_change")]
    pub action: String,
    /// The values before; null for something new.
    #[schema(value_type = Option<Object>, required = true)]
    pub old_values: Option<Box<RawValue>>,
    /// The values after; null for something deleted.
    #[schema(value_type = Option<Object>, required = true)]
    pub new_values: Option<Box<RawValue>>,
    /// Who made it; null for a change made by a database login or a job.
    #[schema(required = true)]
    pub actor_id: Option<Uuid>,
    #[schema(required = true)]
    pub reason: Option<String>,
    pub created_at: DateTime<Utc>,
}

impl From<&AuditEntry> for AuditEntryView {
    fn from(entry: &AuditEntry) -> Self {
        // The columns are jsonb, so their text is JSON.
        let json = |text: &Option<String>| text.clone().and_then(|text| RawValue::from_string(text).ok());
        Self {
            id: entry.id,
            table_name: entry.table_name.clone(),
            record_id: entry.record_id.clone(),
            action: entry.action.clone(),
            old_values: json(&entry.old_values),
            new_values: json(&entry.new_values),
            actor_id: entry.actor_id.map(|actor| actor.0),
            reason: entry.reason.clone(),
            created_at: entry.created_at,
        }
    }
}

/// Lists the changes, newest first.
#[utoipa::path(get, path = "/api/admin/audit", tag = "operators", operation_id = "list_audit", params(AuditQuery), responses(
    (status = 200, description = "A page of changes", body = PageView<AuditEntryView>),
), security(("token" = []), ("key" = [])))]
pub async fn list_audit(
    _admin: PermittedCaller<ReadAudit>,
    query: ValidQuery<AuditQuery>,
    audit: Data<AuditService>,
) -> Result<Json<PageView<AuditEntryView>>, Problem> {
    let AuditQuery { table_name, record_id, actor_id, limit, cursor } = query.0;
    let page = PageQuery { limit, cursor };
    let filter = AuditFilter { table_name, record_id, actor_id: actor_id.map(UserId) };
    let (after, rows) = (page.after()?, page.rows());
    let audit = audit.into_inner();
    let found = detached(async move { audit.list(&filter, after, rows).await }).await?;
    Ok(Json(page.page(&found, |entry| (entry.created_at, entry.id), |entry| AuditEntryView::from(entry))))
}
