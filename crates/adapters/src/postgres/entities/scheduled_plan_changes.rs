//! Rows of `scheduled_plan_changes`: changes that take effect at the end of the paid period.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "scheduled_plan_changes")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub user_id: Uuid,
    pub plan_id: String,
    pub effective_at: DateTimeUtc,
    pub requested_by: Option<Uuid>,
}

impl ActiveModelBehavior for ActiveModel {}
