//! Features on Postgres.
//!
//! Costs: one round trip a call; `save` without any change is one read. Lists are bounded by `FEATURES_MAX`.

use async_trait::async_trait;
use domain::features::{Feature, FeatureChanges, FeatureDraft, FeatureId, FeatureKind};
use ports::features::{FEATURES_MAX, FeatureRepository};
use ports::store::StoreError;
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::{ActiveModelTrait, ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait};

use super::entities::features;
use super::error::store_error;
use super::rows::inconsistent;
use super::store::PgUnitOfWork;

#[async_trait]
impl FeatureRepository for PgUnitOfWork {
    async fn find(&mut self, id: &FeatureId) -> Result<Option<Feature>, StoreError> {
        let row = features::Entity::find_by_id(id.as_str()).one(&self.transaction).await;
        row.map_err(|error| store_error(&error))?.map(feature).transpose()
    }

    async fn list(&mut self, only_active: bool) -> Result<Vec<Feature>, StoreError> {
        let rows = features::Entity::find()
            .apply_if(only_active.then_some(true), |query, active| query.filter(features::Column::IsActive.eq(active)))
            .order_by_asc(features::Column::Id)
            .limit(FEATURES_MAX)
            .all(&self.transaction)
            .await;
        rows.map_err(|error| store_error(&error))?.into_iter().map(feature).collect()
    }

    async fn insert(&mut self, draft: &FeatureDraft) -> Result<Feature, StoreError> {
        let row = features::ActiveModel {
            id: Set(draft.id.to_string()),
            name: Set(draft.name.clone()),
            display_name: Set(draft.display_name.clone()),
            description: Set(draft.description.clone()),
            kind: Set(kind_text(draft.kind).to_owned()),
            unit: Set(draft.unit.clone()),
            is_active: Set(draft.is_active),
            created_at: NotSet,
            updated_at: NotSet,
        };
        row.insert(&self.transaction).await.map_err(|error| store_error(&error)).and_then(feature)
    }

    async fn save(&mut self, id: &FeatureId, changes: &FeatureChanges) -> Result<bool, StoreError> {
        if *changes == FeatureChanges::default() {
            return Ok(FeatureRepository::find(self, id).await?.is_some());
        }
        let row = features::ActiveModel {
            name: changes.name.clone().map_or(NotSet, Set),
            display_name: changes.display_name.clone().map_or(NotSet, Set),
            description: changes.description.clone().map_or(NotSet, Set),
            unit: changes.unit.clone().map_or(NotSet, Set),
            is_active: changes.is_active.map_or(NotSet, Set),
            ..Default::default()
        };
        let update = features::Entity::update_many().set(row).filter(features::Column::Id.eq(id.as_str()));
        let outcome = update.exec(&self.transaction).await.map_err(|error| store_error(&error))?;
        Ok(outcome.rows_affected > 0)
    }

    async fn count_references(&mut self, id: &FeatureId) -> Result<i64, StoreError> {
        let sql = include_str!("sql/count_feature_references.sql");
        Ok(self.read_value(sql, [id.as_str().into()]).await?.unwrap_or_default())
    }

    async fn delete(&mut self, id: &FeatureId) -> Result<bool, StoreError> {
        let outcome = features::Entity::delete_many()
            .filter(features::Column::Id.eq(id.as_str()))
            .exec(&self.transaction)
            .await
            .map_err(|error| store_error(&error))?;
        Ok(outcome.rows_affected > 0)
    }
}

fn feature(row: features::Model) -> Result<Feature, StoreError> {
    Ok(Feature {
        id: FeatureId::parse(&row.id).map_err(|_| inconsistent("features", &row.id))?,
        kind: parse_kind(&row.kind).ok_or_else(|| inconsistent("features", &row.id))?,
        name: row.name,
        display_name: row.display_name,
        description: row.description,
        unit: row.unit,
        is_active: row.is_active,
        created_at: row.created_at,
        updated_at: row.updated_at,
    })
}

const fn kind_text(kind: FeatureKind) -> &'static str {
    match kind {
        FeatureKind::Boolean => "boolean",
        FeatureKind::Metered => "metered",
    }
}

pub(super) fn parse_kind(text: &str) -> Option<FeatureKind> {
    [FeatureKind::Boolean, FeatureKind::Metered].into_iter().find(|kind| kind_text(*kind) == text)
}
