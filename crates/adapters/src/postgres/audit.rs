//! Audit on Postgres: reads what the triggers wrote. One round trip, bounded by the page.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::audit::AuditEntry;
use domain::users::UserId;
use ports::audit::{AuditFilter, AuditRepository};
use ports::store::{Page, StoreError};
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait};
use uuid::Uuid;

use super::entities::audit_logs::{self, Column};
use super::error::store_error;
use super::store::PgUnitOfWork;

#[async_trait]
impl AuditRepository for PgUnitOfWork {
    async fn list(
        &mut self,
        filter: &AuditFilter,
        page: &Page<(DateTime<Utc>, Uuid)>,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let rows = audit_logs::Entity::find()
            .apply_if(filter.table_name.clone(), |query, name| query.filter(Column::TableName.eq(name)))
            .apply_if(filter.record_id.clone(), |query, id| query.filter(Column::RecordId.eq(id)))
            .apply_if(filter.actor_id, |query, actor| query.filter(Column::ActorId.eq(actor.0)))
            .apply_if(page.after, |query, (created_at, id)| {
                let position = Expr::tuple([Expr::col(Column::CreatedAt), Expr::col(Column::Id)]);
                query.filter(position.lt(Expr::tuple([Expr::value(created_at), Expr::value(id)])))
            })
            .order_by_desc(Column::CreatedAt)
            .order_by_desc(Column::Id)
            .limit(page.limit)
            .all(&self.transaction)
            .await
            .map_err(|error| store_error(&error))?;
        Ok(rows.into_iter().map(entry).collect())
    }
}

fn entry(row: audit_logs::Model) -> AuditEntry {
    AuditEntry {
        id: row.id,
        table_name: row.table_name,
        record_id: row.record_id,
        action: row.action,
        old_values: row.old_values.map(|values| values.to_string()),
        new_values: row.new_values.map(|values| values.to_string()),
        actor_id: row.actor_id.map(UserId),
        reason: row.reason,
        created_at: row.created_at,
    }
}
