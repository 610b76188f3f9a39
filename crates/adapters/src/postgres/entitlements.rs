//! Entitlements on Postgres. `feature_entitlement` gives the facts; the domain decides what they mean.
//!
//! Costs: one round trip per call, also for `find_many` and `count_many`, whose callers bound them; `list` is one
//! statement for all active features, bounded by `FEATURES_MAX`. No locks: the facts are as of the statement.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::entitlements::{Access, Allowance, Count, Entitlement, FeatureOverride, Source};
use domain::features::FeatureId;
use domain::plans::PlanId;
use domain::usage::{CounterTally, Period};
use domain::users::UserId;
use ports::entitlements::{EntitlementRepository, EntitlementState, Meter, MeterMissing, NamedEntitlement};
use ports::features::FEATURES_MAX;
use ports::store::StoreError;
use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ColumnTrait, EntityTrait, FromQueryResult, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use super::entities::feature_overrides;
use super::error::store_error;
use super::features::parse_kind;
use super::plans::parse_overage;
use super::rows::{inconsistent, limit};
use super::store::PgUnitOfWork;

#[derive(FromQueryResult)]
pub(super) struct EntitlementRow {
    feature_id: String,
    display_name: String,
    kind: String,
    unit: Option<String>,
    feature_active: bool,
    enabled: bool,
    lapsed: bool,
    source: String,
    plan_id: String,
    limit_value: Option<i64>,
    limit_period: String,
    overage: String,
    period_start: DateTime<Utc>,
    period_end: Option<DateTime<Utc>>,
    used: i64,
    reserved: i64,
    counter_overage: i64,
    token_balance: i64,
    token_reserved: i64,
    as_of: DateTime<Utc>,
}

#[derive(FromQueryResult)]
struct Known {
    user_known: bool,
    #[sea_orm(nested)]
    facts: Option<EntitlementRow>,
}

#[derive(FromQueryResult)]
struct StandingRow {
    user_known: bool,
    changes_at: Option<DateTime<Utc>>,
    #[sea_orm(nested)]
    facts: Option<EntitlementRow>,
}

#[derive(FromQueryResult)]
struct CountRow {
    place: i64,
    used: i64,
    reserved: i64,
    overage: i64,
    token_balance: i64,
    token_reserved: i64,
    as_of: DateTime<Utc>,
}

#[async_trait]
impl EntitlementRepository for PgUnitOfWork {
    async fn find(
        &mut self,
        user_id: UserId,
        feature_id: &FeatureId,
    ) -> Result<Result<NamedEntitlement, MeterMissing>, StoreError> {
        let sql = include_str!("sql/find_entitlement.sql");
        let known: Option<Known> = self.read_one(sql, [user_id.0.into(), feature_id.as_str().into()]).await?;
        match known {
            Some(Known { facts: Some(facts), .. }) => entitlement(user_id, facts).map(Ok),
            Some(Known { user_known: true, .. }) => Ok(Err(MeterMissing::Feature)),
            _ => Ok(Err(MeterMissing::User)),
        }
    }

    async fn find_many(&mut self, meters: &[Meter]) -> Result<Vec<Result<EntitlementState, MeterMissing>>, StoreError> {
        let (users, features) = columns(meters.iter());
        let rows: Vec<StandingRow> =
            self.read_all(include_str!("sql/find_entitlements.sql"), [users.into(), features.into()]).await?;
        if rows.len() != meters.len() {
            return Err(StoreError::Unexpected("entitlements were answered in another number than asked for".into()));
        }
        let standing = |(row, meter): (StandingRow, &Meter)| match row {
            StandingRow { facts: Some(facts), changes_at, .. } => {
                let entitlement = entitlement(meter.user_id, facts)?.entitlement;
                Ok(Ok(EntitlementState { entitlement, changes_at }))
            }
            StandingRow { user_known: true, .. } => Ok(Err(MeterMissing::Feature)),
            StandingRow { .. } => Ok(Err(MeterMissing::User)),
        };
        rows.into_iter().zip(meters).map(standing).collect()
    }

    async fn count_many(&mut self, periods: &[(Meter, Period)]) -> Result<Vec<Option<Count>>, StoreError> {
        let (users, features) = columns(periods.iter().map(|(meter, _)| meter));
        let (kinds, starts): (Vec<String>, Vec<DateTime<Utc>>) =
            periods.iter().map(|(_, period)| (period.kind.as_str().to_owned(), period.start)).unzip();
        let values = [users.into(), features.into(), kinds.into(), starts.into()];
        let rows: Vec<CountRow> = self.read_all(include_str!("sql/find_counts.sql"), values).await?;
        let mut counts = vec![None; periods.len()];
        for row in rows {
            // Places are counted from 1.
            let place = usize::try_from(row.place).unwrap_or_default();
            if let Some(count) = place.checked_sub(1).and_then(|place| counts.get_mut(place)) {
                *count = Some(Count {
                    tally: CounterTally { used: row.used, reserved: row.reserved, overage: row.overage },
                    tokens_available: tokens_available(row.token_balance, row.token_reserved),
                    as_of: row.as_of,
                });
            }
        }
        Ok(counts)
    }

    async fn list(&mut self, user_id: UserId) -> Result<Vec<NamedEntitlement>, StoreError> {
        let rows =
            self.read_all(include_str!("sql/list_entitlements.sql"), [user_id.0.into(), limit(FEATURES_MAX)]).await?;
        rows.into_iter().map(|row| entitlement(user_id, row)).collect()
    }

    async fn list_overrides(&mut self, user_id: UserId) -> Result<Vec<FeatureOverride>, StoreError> {
        let rows = feature_overrides::Entity::find()
            .filter(feature_overrides::Column::UserId.eq(user_id.0))
            .order_by_asc(feature_overrides::Column::FeatureId)
            .limit(FEATURES_MAX)
            .all(&self.transaction)
            .await;
        rows.map_err(|error| store_error(&error))?.into_iter().map(exception).collect()
    }

    async fn save_override(&mut self, exception: &FeatureOverride) -> Result<(), StoreError> {
        let row = feature_overrides::ActiveModel {
            user_id: Set(exception.user_id.0),
            feature_id: Set(exception.feature_id.to_string()),
            enabled: Set(exception.enabled),
            limit_value: Set(exception.allowance.limit()),
            reason: Set(exception.reason.clone()),
            expires_at: Set(exception.expires_at),
        };
        let replacing = OnConflict::columns([feature_overrides::Column::UserId, feature_overrides::Column::FeatureId])
            .update_columns([
                feature_overrides::Column::Enabled,
                feature_overrides::Column::LimitValue,
                feature_overrides::Column::Reason,
                feature_overrides::Column::ExpiresAt,
            ])
            .to_owned();
        let insert = feature_overrides::Entity::insert(row).on_conflict(replacing);
        insert.exec_without_returning(&self.transaction).await.map(drop).map_err(|error| store_error(&error))
    }

    async fn delete_override(&mut self, user_id: UserId, feature_id: &FeatureId) -> Result<bool, StoreError> {
        let sql = "DELETE FROM feature_overrides WHERE user_id = $1 AND feature_id = $2";
        Ok(self.run(sql, [user_id.0.into(), feature_id.as_str().into()]).await? > 0)
    }
}

pub(super) fn entitlement(user_id: UserId, row: EntitlementRow) -> Result<NamedEntitlement, StoreError> {
    let unfit = |table| inconsistent(table, format_args!("{user_id}:{}", row.feature_id));
    let source = if row.source == "override" { Source::Override } else { Source::Plan };
    let access = match (row.feature_active, row.enabled, source) {
        (false, _, _) | (true, false, Source::Override) => Access::Disabled,
        (true, true, _) => Access::Granted,
        (true, false, Source::Plan) if row.lapsed => Access::SubscriptionLapsed,
        (true, false, Source::Plan) => Access::NotInPlan,
    };
    Ok(NamedEntitlement {
        kind: parse_kind(&row.kind).ok_or_else(|| unfit("features"))?,
        unit: row.unit.clone(),
        entitlement: Entitlement {
            feature_id: FeatureId::parse(&row.feature_id).map_err(|_| unfit("features"))?,
            plan_id: PlanId::parse(&row.plan_id).map_err(|_| unfit("plans"))?,
            source,
            access,
            allowance: Allowance::try_new(row.limit_value).map_err(|_| unfit("plan_features"))?,
            overage: parse_overage(&row.overage).ok_or_else(|| unfit("plan_features"))?,
            period: Period {
                kind: row.limit_period.parse().map_err(|_| unfit("plan_features"))?,
                start: row.period_start,
                end: row.period_end,
            },
            tally: CounterTally { used: row.used, reserved: row.reserved, overage: row.counter_overage },
            tokens_available: tokens_available(row.token_balance, row.token_reserved),
            as_of: row.as_of,
        },
        display_name: row.display_name,
    })
}

fn tokens_available(balance: i64, reserved: i64) -> i64 {
    balance.saturating_sub(reserved).max(0)
}

/// The requested meters as two columns.
fn columns<'a>(meters: impl Iterator<Item = &'a Meter>) -> (Vec<Uuid>, Vec<String>) {
    meters.map(|meter| (meter.user_id.0, meter.feature_id.to_string())).unzip()
}

fn exception(row: feature_overrides::Model) -> Result<FeatureOverride, StoreError> {
    let unfit = || inconsistent("feature_overrides", format_args!("{}:{}", row.user_id, row.feature_id));
    Ok(FeatureOverride {
        user_id: UserId(row.user_id),
        feature_id: FeatureId::parse(&row.feature_id).map_err(|_| unfit())?,
        enabled: row.enabled,
        allowance: Allowance::try_new(row.limit_value).map_err(|_| unfit())?,
        reason: row.reason,
        expires_at: row.expires_at,
    })
}
