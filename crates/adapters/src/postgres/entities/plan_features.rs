//! Rows of `plan_features`: what a plan grants of a feature.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "plan_features")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub plan_id: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub feature_id: String,
    pub enabled: bool,
    pub limit_value: Option<i64>,
    pub limit_period: String,
    pub overage: String,
}

impl ActiveModelBehavior for ActiveModel {}
