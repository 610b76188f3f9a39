//! Plans on Postgres.
//!
//! Costs: two round trips to read plans with their features, one for anything else; `save` without a change is one
//! read. Lists are bounded by `PLANS_MAX` plans and `FEATURES_MAX` features each.

use std::collections::HashMap;

use async_trait::async_trait;
use domain::entitlements::{Allowance, Overage};
use domain::features::FeatureId;
use domain::plans::{Currency, Plan, PlanChanges, PlanDraft, PlanFeature, PlanId, Price};
use ports::features::FEATURES_MAX;
use ports::plans::{PLANS_MAX, PlanRepository};
use ports::store::StoreError;
use rust_decimal::Decimal;
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::sea_query::OnConflict;
use sea_orm::{ActiveModelTrait, ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait};

use super::entities::{plan_features, plans};
use super::error::store_error;
use super::rows::inconsistent;
use super::store::PgUnitOfWork;

#[async_trait]
impl PlanRepository for PgUnitOfWork {
    async fn find(&mut self, id: &PlanId) -> Result<Option<Plan>, StoreError> {
        let row = plans::Entity::find_by_id(id.as_str()).one(&self.transaction).await;
        let Some(row) = row.map_err(|error| store_error(&error))? else { return Ok(None) };
        Ok(self.with_features(vec![row]).await?.pop())
    }

    async fn list(&mut self, only_active: bool) -> Result<Vec<Plan>, StoreError> {
        let rows = plans::Entity::find()
            .apply_if(only_active.then_some(true), |query, active| query.filter(plans::Column::IsActive.eq(active)))
            .order_by_asc(plans::Column::Id)
            .limit(PLANS_MAX)
            .all(&self.transaction)
            .await
            .map_err(|error| store_error(&error))?;
        let mut plans = self.with_features(rows).await?;
        // The domain defines the monthly price. The sort is stable, so plans of equal price stay in the order of their
        // ids.
        plans.sort_by_key(Plan::monthly_worth);
        Ok(plans)
    }

    async fn insert(&mut self, draft: &PlanDraft) -> Result<Plan, StoreError> {
        let row = plans::ActiveModel {
            id: Set(draft.id.to_string()),
            name: Set(draft.name.clone()),
            display_name: Set(draft.display_name.clone()),
            description: Set(draft.description.clone()),
            price_monthly: Set(draft.price_monthly.map(Price::amount)),
            price_yearly: Set(draft.price_yearly.map(Price::amount)),
            currency: Set(draft.currency.as_str().to_owned()),
            is_active: Set(draft.is_active),
            created_at: NotSet,
            updated_at: NotSet,
        };
        let row = row.insert(&self.transaction).await.map_err(|error| store_error(&error))?;
        plan(row, Vec::new())
    }

    async fn save(&mut self, id: &PlanId, changes: &PlanChanges) -> Result<bool, StoreError> {
        if *changes == PlanChanges::default() {
            return Ok(PlanRepository::find(self, id).await?.is_some());
        }
        let row = plans::ActiveModel {
            name: changes.name.clone().map_or(NotSet, Set),
            display_name: changes.display_name.clone().map_or(NotSet, Set),
            description: changes.description.clone().map_or(NotSet, Set),
            price_monthly: changes.price_monthly.map_or(NotSet, |price| Set(price.map(Price::amount))),
            price_yearly: changes.price_yearly.map_or(NotSet, |price| Set(price.map(Price::amount))),
            currency: changes.currency.as_ref().map_or(NotSet, |currency| Set(currency.as_str().to_owned())),
            is_active: changes.is_active.map_or(NotSet, Set),
            ..Default::default()
        };
        let update = plans::Entity::update_many().set(row).filter(plans::Column::Id.eq(id.as_str()));
        let outcome = update.exec(&self.transaction).await.map_err(|error| store_error(&error))?;
        Ok(outcome.rows_affected > 0)
    }

    async fn count_references(&mut self, id: &PlanId) -> Result<i64, StoreError> {
        let sql = include_str!("sql/count_plan_references.sql");
        Ok(self.read_value(sql, [id.as_str().into()]).await?.unwrap_or_default())
    }

    async fn delete(&mut self, id: &PlanId) -> Result<bool, StoreError> {
        let outcome = plans::Entity::delete_many()
            .filter(plans::Column::Id.eq(id.as_str()))
            .exec(&self.transaction)
            .await
            .map_err(|error| store_error(&error))?;
        Ok(outcome.rows_affected > 0)
    }

    async fn save_feature(&mut self, id: &PlanId, feature: &PlanFeature) -> Result<(), StoreError> {
        let row = plan_features::ActiveModel {
            plan_id: Set(id.to_string()),
            feature_id: Set(feature.feature_id.to_string()),
            enabled: Set(feature.enabled),
            limit_value: Set(feature.allowance.limit()),
            limit_period: Set(feature.period.as_str().to_owned()),
            overage: Set(feature.overage.as_str().to_owned()),
        };
        let replacing = OnConflict::columns([plan_features::Column::PlanId, plan_features::Column::FeatureId])
            .update_columns([
                plan_features::Column::Enabled,
                plan_features::Column::LimitValue,
                plan_features::Column::LimitPeriod,
                plan_features::Column::Overage,
            ])
            .to_owned();
        let insert = plan_features::Entity::insert(row).on_conflict(replacing);
        insert.exec_without_returning(&self.transaction).await.map(drop).map_err(|error| store_error(&error))
    }

    async fn delete_feature(&mut self, id: &PlanId, feature_id: &FeatureId) -> Result<bool, StoreError> {
        let outcome = plan_features::Entity::delete_many()
            .filter(plan_features::Column::PlanId.eq(id.as_str()))
            .filter(plan_features::Column::FeatureId.eq(feature_id.as_str()))
            .exec(&self.transaction)
            .await
            .map_err(|error| store_error(&error))?;
        Ok(outcome.rows_affected > 0)
    }
}

impl PgUnitOfWork {
    /// Reads the features of these plans in one statement and assigns them to their plans.
    async fn with_features(&self, rows: Vec<plans::Model>) -> Result<Vec<Plan>, StoreError> {
        let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
        let features = plan_features::Entity::find()
            .filter(plan_features::Column::PlanId.eq_any(ids))
            .order_by_asc(plan_features::Column::FeatureId)
            .limit(PLANS_MAX * FEATURES_MAX)
            .all(&self.transaction)
            .await
            .map_err(|error| store_error(&error))?;
        let mut by_plan: HashMap<String, Vec<PlanFeature>> = HashMap::new();
        for row in features {
            let plan_id = row.plan_id.clone();
            by_plan.entry(plan_id).or_default().push(plan_feature(&row)?);
        }
        rows.into_iter()
            .map(|row| {
                let features = by_plan.remove(&row.id).unwrap_or_default();
                plan(row, features)
            })
            .collect()
    }
}

fn plan(row: plans::Model, features: Vec<PlanFeature>) -> Result<Plan, StoreError> {
    let unfit = || inconsistent("plans", &row.id);
    let price = |amount: Option<Decimal>| amount.map(Price::try_new).transpose().map_err(|_| unfit());
    Ok(Plan {
        id: PlanId::parse(&row.id).map_err(|_| unfit())?,
        price_monthly: price(row.price_monthly)?,
        price_yearly: price(row.price_yearly)?,
        currency: Currency::parse(&row.currency).map_err(|_| unfit())?,
        name: row.name,
        display_name: row.display_name,
        description: row.description,
        is_active: row.is_active,
        features,
        created_at: row.created_at,
        updated_at: row.updated_at,
    })
}

fn plan_feature(row: &plan_features::Model) -> Result<PlanFeature, StoreError> {
    let unfit = || inconsistent("plan_features", format_args!("{}:{}", row.plan_id, row.feature_id));
    Ok(PlanFeature {
        feature_id: FeatureId::parse(&row.feature_id).map_err(|_| unfit())?,
        enabled: row.enabled,
        allowance: Allowance::try_new(row.limit_value).map_err(|_| unfit())?,
        period: row.limit_period.parse().map_err(|_| unfit())?,
        overage: parse_overage(&row.overage).ok_or_else(unfit)?,
    })
}

pub(super) fn parse_overage(text: &str) -> Option<Overage> {
    [Overage::Block, Overage::Tokens].into_iter().find(|overage| overage.as_str() == text)
}
