//! Plans: the public catalogue, and its changes by administrators.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Json, Path};
use domain::entitlements::{Allowance, Overage};
use domain::features::FeatureId;
use domain::identity::Permission;
use domain::plans::{Currency, Plan, PlanChanges, PlanDraft, PlanFeature, PlanId, PlanKept, Price};
use domain::usage::PeriodKind;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use services::plans::{CatalogueError, PlanEdit, PlanService};
use utoipa::ToSchema;
use validator::Validate;

use super::caller::{OptionalCaller, WriteCatalogue};
use super::idempotent::{RequestKey, answer};
use super::pages::ListView;
use super::problem::{Problem, ProblemView};
use super::recent::RecentCaller;
use super::spawn::detached;
use super::validation::{ValidBody, one_line, present};

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanIn {
    /// 1 to 50 characters of a-z, 0-9, _ and -.
    #[validate(length(min = 1, max = 50))]
    #[schema(pattern = "^[a-z0-9_-]{1,50}$", min_length = 1, max_length = 50)]
    id: String,
    #[validate(length(min = 1, max = 100), custom(function = "one_line"))]
    #[schema(
        pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$",
        min_length = 1,
        max_length = 100
    )]
    name: String,
    #[validate(length(min = 1, max = 100), custom(function = "one_line"))]
    #[schema(
        pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$",
        min_length = 1,
        max_length = 100
    )]
    display_name: String,
    #[serde(default)]
    #[validate(length(max = 2000))]
    #[schema(max_length = 2000)]
    description: Option<String>,
    /// Not negative, at most two decimals, as text: `"980.00"`.
    #[serde(default)]
    #[schema(value_type = Option<String>, pattern = r"^[0-9]{1,8}(\.[0-9]{1,2})?$", example = "980.00")]
    price_monthly: Option<Decimal>,
    #[serde(default)]
    #[schema(value_type = Option<String>, pattern = r"^[0-9]{1,8}(\.[0-9]{1,2})?$", example = "9800.00")]
    price_yearly: Option<Decimal>,
    /// JPY by default.
    #[serde(default)]
    #[schema(pattern = "^[A-Z]{3}$")]
    currency: Option<String>,
    /// True by default.
    #[serde(default)]
    is_active: Option<bool>,
}

/// The changes; an omitted field stays as it is. Null removes a description or a price.
#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanChangesIn {
    #[serde(default)]
    #[validate(length(min = 1, max = 100), custom(function = "one_line"))]
    #[schema(
        pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$",
        min_length = 1,
        max_length = 100
    )]
    name: Option<String>,
    #[serde(default)]
    #[validate(length(min = 1, max = 100), custom(function = "one_line"))]
    #[schema(
        pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$",
        min_length = 1,
        max_length = 100
    )]
    display_name: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[validate(length(max = 2000))]
    #[schema(value_type = Option<String>, max_length = 2000)]
    description: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, pattern = r"^[0-9]{1,8}(\.[0-9]{1,2})?$")]
    price_monthly: Option<Option<Decimal>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, pattern = r"^[0-9]{1,8}(\.[0-9]{1,2})?$")]
    price_yearly: Option<Option<Decimal>>,
    #[serde(default)]
    #[schema(pattern = "^[A-Z]{3}$")]
    currency: Option<String>,
    #[serde(default)]
    is_active: Option<bool>,
}

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanFeatureIn {
    enabled: bool,
    /// Null or left out is unlimited; 0 is a limit.
    #[serde(default, deserialize_with = "super::validation::whole")]
    #[validate(range(min = 0, message = "must not be negative; null is unlimited"))]
    #[schema(minimum = 0)]
    limit_value: Option<i64>,
    /// `month` by default.
    #[serde(default)]
    #[schema(value_type = Option<PeriodName>)]
    limit_period: Option<PeriodKind>,
    /// What happens at the limit; `block` by default.
    #[serde(default)]
    #[schema(value_type = Option<OverageName>)]
    overage: Option<Overage>,
}

/// The period of a limit, in UTC.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum PeriodName {
    Day,
    Month,
    BillingPeriod,
    Lifetime,
}

/// At the limit: no more use, or further use at one token a unit.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum OverageName {
    Block,
    Tokens,
}

#[derive(Serialize, ToSchema)]
pub struct PlanView {
    #[schema(example = "gold")]
    pub id: String,
    pub name: String,
    pub display_name: String,
    #[schema(required = true)]
    pub description: Option<String>,
    /// A decimal with two places, as text.
    #[schema(required = true, example = "980.00")]
    pub price_monthly: Option<String>,
    #[schema(required = true, example = "9800.00")]
    pub price_yearly: Option<String>,
    #[schema(example = "JPY")]
    pub currency: String,
    pub is_active: bool,
    pub features: Vec<PlanFeatureView>,
}

#[derive(Serialize, ToSchema)]
pub struct PlanFeatureView {
    #[schema(example = "ai_requests")]
    pub feature_id: String,
    pub enabled: bool,
    /// Null is unlimited.
    #[schema(required = true)]
    pub limit_value: Option<i64>,
    #[schema(value_type = PeriodName)]
    pub limit_period: PeriodKind,
    #[schema(value_type = OverageName)]
    pub overage: Overage,
}

impl From<&Plan> for PlanView {
    fn from(plan: &Plan) -> Self {
        let feature = |feature: &PlanFeature| PlanFeatureView {
            feature_id: feature.feature_id.to_string(),
            enabled: feature.enabled,
            limit_value: feature.allowance.limit(),
            limit_period: feature.period,
            overage: feature.overage,
        };
        Self {
            id: plan.id.to_string(),
            name: plan.name.clone(),
            display_name: plan.display_name.clone(),
            description: plan.description.clone(),
            price_monthly: plan.price_monthly.map(|price| price.to_string()),
            price_yearly: plan.price_yearly.map(|price| price.to_string()),
            currency: plan.currency.as_str().to_owned(),
            is_active: plan.is_active,
            features: plan.features.iter().map(feature).collect(),
        }
    }
}

impl From<CatalogueError> for Problem {
    fn from(error: CatalogueError) -> Self {
        match error {
            CatalogueError::UnknownPlan(_) | CatalogueError::UnknownFeature(_) | CatalogueError::NotInPlan { .. } => {
                Self::not_found(super::problem::sentence(&error.to_string()))
            }
            CatalogueError::IdTaken(_) => Self::conflict("id_taken", &error),
            CatalogueError::Full(_) => Self::unprocessable("catalogue_full", &error),
            CatalogueError::Kept(PlanKept::InUse { .. }) => Self::conflict("plan_in_use", &error),
            CatalogueError::Kept(PlanKept::Fallback) => Self::conflict("plan_is_fallback", &error),
            CatalogueError::FeatureInUse { .. } => Self::conflict("feature_in_use", &error),
            CatalogueError::Key(conflict) => conflict.into(),
            CatalogueError::Store(error) => error.into(),
        }
    }
}

/// Lists the plans on offer with their features and limits, cheapest first. Administrators also see withdrawn ones.
#[utoipa::path(get, path = "/api/plans", tag = "plans", operation_id = "list_plans", responses(
    (status = 200, description = "The plans", body = ListView<PlanView>),
))]
pub async fn list_plans(who: OptionalCaller, plans: Data<PlanService>) -> Result<Json<ListView<PlanView>>, Problem> {
    let plans = plans.into_inner();
    let views = if who.may_administer(Permission::PlansRead) {
        let every = detached(async move { plans.every_plan().await }).await?;
        every.iter().map(PlanView::from).collect()
    } else {
        let active = detached(async move { plans.available_plans().await }).await?;
        active.iter().map(PlanView::from).collect()
    };
    Ok(Json(ListView::whole(views)))
}

/// Reads one plan.
#[utoipa::path(get, path = "/api/plans/{plan_id}", tag = "plans", operation_id = "read_plan",
    params(("plan_id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "The plan", body = PlanView),
    (status = 404, description = "No such plan", body = ProblemView),
))]
pub async fn read_plan(
    who: OptionalCaller,
    id: Path<String>,
    plans: Data<PlanService>,
) -> Result<Json<PlanView>, Problem> {
    let id = plan_id(&id)?;
    let to_admin = who.may_administer(Permission::PlansRead);
    let plans = plans.into_inner();
    let plan = detached(async move { plans.find(&id, to_admin).await }).await?;
    Ok(Json(PlanView::from(&plan)))
}

/// Adds a plan. It grants nothing until features are set on it.
#[utoipa::path(post, path = "/api/plans", tag = "catalogue", operation_id = "create_plan", request_body = PlanIn,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat answer what the first answered")),
    responses(
    (status = 201, description = "The plan", body = PlanView),
    (status = 409, description = "The id is taken", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn create_plan(
    admin: RecentCaller<WriteCatalogue>,
    key: RequestKey,
    plans: Data<PlanService>,
    input: ValidBody<PlanIn>,
) -> Result<HttpResponse, Problem> {
    let actor = admin.caller.user_id;
    let once = key.once(&admin.caller, &input.bytes, StatusCode::CREATED, |plan: &Plan| PlanView::from(plan));
    let draft = draft(input.body)?;
    let plans = plans.into_inner();
    Ok(answer(detached(async move { plans.create(actor, &draft, once).await }).await?))
}

/// Changes the names, description or prices of a plan, or withdraws it.
#[utoipa::path(patch, path = "/api/plans/{plan_id}", tag = "catalogue", operation_id = "change_plan_description",
    request_body = PlanChangesIn, params(("plan_id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "The plan as it is now", body = PlanView),
    (status = 404, description = "No such plan", body = ProblemView),
    (status = 409, description = "`free` cannot be withdrawn", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn change_plan(
    admin: RecentCaller<WriteCatalogue>,
    id: Path<String>,
    plans: Data<PlanService>,
    input: ValidBody<PlanChangesIn>,
) -> Result<Json<PlanView>, Problem> {
    edit(admin, plan_id(&id)?, plans, PlanEdit::Describe(changes(input.body)?)).await
}

/// Deletes a plan that no user has.
#[utoipa::path(delete, path = "/api/plans/{plan_id}", tag = "catalogue", operation_id = "delete_plan",
    params(("plan_id" = String, Path, description = "Its id")), responses(
    (status = 204, description = "It is gone"),
    (status = 404, description = "No such plan", body = ProblemView),
    (status = 409, description = "It has users, or is `free`", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn delete_plan(
    admin: RecentCaller<WriteCatalogue>,
    id: Path<String>,
    plans: Data<PlanService>,
) -> Result<HttpResponse, Problem> {
    let id = plan_id(&id)?;
    let plans = plans.into_inner();
    detached(async move { plans.delete(admin.caller.user_id, &id).await }).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Sets what a plan grants of a feature, new or not.
#[utoipa::path(put, path = "/api/plans/{plan_id}/features/{feature_id}", tag = "catalogue", operation_id = "grant_feature",
    request_body = PlanFeatureIn,
    params(("plan_id" = String, Path, description = "The plan"), ("feature_id" = String, Path, description = "The feature")),
    responses(
    (status = 200, description = "The plan as it is now", body = PlanView),
    (status = 404, description = "No such plan or feature", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn grant_feature(
    admin: RecentCaller<WriteCatalogue>,
    ids: Path<(String, String)>,
    plans: Data<PlanService>,
    input: ValidBody<PlanFeatureIn>,
) -> Result<Json<PlanView>, Problem> {
    let (plan, feature) = ids.into_inner();
    let PlanFeatureIn { enabled, limit_value, limit_period, overage } = input.body;
    let allowance =
        Allowance::try_new(limit_value).map_err(|why| Problem::invalid_field("limit_value", why.to_string()))?;
    let granted = PlanFeature {
        feature_id: feature_id(&feature)?,
        enabled,
        allowance,
        period: limit_period.unwrap_or(PeriodKind::Month),
        overage: overage.unwrap_or(Overage::Block),
    };
    edit(admin, plan_id(&plan)?, plans, PlanEdit::Grant(granted)).await
}

/// Removes a feature from a plan.
#[utoipa::path(delete, path = "/api/plans/{plan_id}/features/{feature_id}", tag = "catalogue", operation_id = "revoke_feature",
    params(("plan_id" = String, Path, description = "The plan"), ("feature_id" = String, Path, description = "The feature")),
    responses(
    (status = 200, description = "The plan as it is now", body = PlanView),
    (status = 404, description = "No such plan, or it says nothing of the feature", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn revoke_feature(
    admin: RecentCaller<WriteCatalogue>,
    ids: Path<(String, String)>,
    plans: Data<PlanService>,
) -> Result<Json<PlanView>, Problem> {
    let (plan, feature) = ids.into_inner();
    edit(admin, plan_id(&plan)?, plans, PlanEdit::Revoke(feature_id(&feature)?)).await
}

async fn edit(
    admin: RecentCaller<WriteCatalogue>,
    id: PlanId,
    plans: Data<PlanService>,
    edit: PlanEdit,
) -> Result<Json<PlanView>, Problem> {
    let plans = plans.into_inner();
    let plan = detached(async move { plans.change(admin.caller.user_id, &id, &edit).await }).await?;
    Ok(Json(PlanView::from(&plan)))
}

fn draft(input: PlanIn) -> Result<PlanDraft, Problem> {
    Ok(PlanDraft {
        id: PlanId::parse(&input.id)
            .map_err(|_| Problem::invalid_field("id", "has characters beside a-z, 0-9, _ and -"))?,
        name: input.name,
        display_name: input.display_name,
        description: input.description,
        price_monthly: price("price_monthly", input.price_monthly)?,
        price_yearly: price("price_yearly", input.price_yearly)?,
        currency: currency(input.currency.as_deref().unwrap_or("JPY"))?,
        is_active: input.is_active.unwrap_or(true),
    })
}

fn changes(input: PlanChangesIn) -> Result<PlanChanges, Problem> {
    let priced = |field, change: Option<Option<Decimal>>| change.map(|amount| price(field, amount)).transpose();
    Ok(PlanChanges {
        name: input.name,
        display_name: input.display_name,
        description: input.description,
        price_monthly: priced("price_monthly", input.price_monthly)?,
        price_yearly: priced("price_yearly", input.price_yearly)?,
        currency: input.currency.as_deref().map(currency).transpose()?,
        is_active: input.is_active,
    })
}

fn price(field: &str, amount: Option<Decimal>) -> Result<Option<Price>, Problem> {
    amount.map(Price::try_new).transpose().map_err(|why| Problem::invalid_field(field, format!("is refused: {why}")))
}

fn currency(text: &str) -> Result<Currency, Problem> {
    Currency::parse(text).map_err(|why| Problem::invalid_field("currency", format!("is refused: {why}")))
}

/// A path without a valid id names no plan.
pub fn plan_id(text: &str) -> Result<PlanId, Problem> {
    PlanId::parse(text).map_err(|_| Problem::not_found("There is no such plan."))
}

/// A path without a valid id names no feature.
pub fn feature_id(text: &str) -> Result<FeatureId, Problem> {
    FeatureId::parse(text).map_err(|_| Problem::not_found("There is no such feature."))
}
