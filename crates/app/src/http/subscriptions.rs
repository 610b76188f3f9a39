//! Subscriptions: a user's plan with all that it allows, and its change.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Json, Path};
use chrono::{DateTime, Utc};
use domain::entitlements::{Reason, Source, decide};
use domain::features::FeatureKind;
use domain::subscriptions::{ChangeDirection, ChangeWhen, PlanChangeRefused};
use domain::usage::PeriodKind;
use ports::entitlements::NamedEntitlement;
use serde::{Deserialize, Serialize};
use serde_json::json;
use services::plans::PlanService;
use services::subscriptions::{ChangedPlan, PlanChangeError, PlanWish, UserPlanInfo};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use validator::Validate;

use super::caller::{ChangeOwnPlan, PermittedCaller, ReadAnyUser, ReadOwnPlan, WriteAnyUser};
use super::entitlements::{ReasonName, SourceName};
use super::features::FeatureKindName;
use super::idempotent::{RequestKey, answer};
use super::plans::{PeriodName, plan_id};
use super::problem::{Problem, ProblemView, sentence};
use super::recent::RecentCaller;
use super::spawn::detached;
use super::users::user_id;
use super::validation::{ValidBody, ValidQuery, one_line};

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePlanIn {
    #[validate(length(min = 1, max = 50))]
    #[schema(example = "gold", min_length = 1, max_length = 50)]
    plan_id: String,
    /// How a paid plan is to be billed. It matters only if Stripe bills; otherwise nothing is owed.
    #[serde(default)]
    #[expect(dead_code, reason = "clients may send it in every billing mode; the checkout reads it")]
    interval: Option<BillingInterval>,
    /// `now` or `period_end`. By default: an upgrade now, a downgrade at the end of the paid period.
    #[serde(default)]
    #[schema(value_type = Option<WhenName>)]
    when: Option<ChangeWhen>,
}

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantPlanIn {
    #[validate(length(min = 1, max = 50))]
    #[schema(example = "gold", min_length = 1, max_length = 50)]
    plan_id: String,
    #[serde(default)]
    #[schema(value_type = Option<WhenName>)]
    when: Option<ChangeWhen>,
    /// Stored in the audit trail.
    #[serde(default)]
    #[validate(length(min = 1, max = 500), custom(function = "one_line"))]
    #[schema(
        pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$",
        min_length = 1,
        max_length = 500
    )]
    reason: Option<String>,
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BillingInterval {
    Month,
    Year,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum WhenName {
    Now,
    PeriodEnd,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum DirectionName {
    Upgrade,
    Downgrade,
    Lateral,
}

#[derive(Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PreviewQuery {
    /// True: return what would happen, and change nothing.
    #[serde(default)]
    preview: bool,
}

/// The plan in force, its subscription, and what it allows now.
#[derive(Serialize, ToSchema)]
pub struct UserPlanInfoView {
    pub user_id: Uuid,
    #[schema(example = "free")]
    pub plan_id: String,
    pub plan_display_name: String,
    /// A decimal with two places, as text.
    #[schema(required = true)]
    pub price_monthly: Option<String>,
    #[schema(required = true)]
    pub price_yearly: Option<String>,
    pub currency: String,
    /// `trialing`, `active` or `past_due` of the live subscription; `active` without one.
    #[schema(example = "active")]
    pub status: String,
    #[schema(required = true)]
    pub current_period_start: Option<DateTime<Utc>>,
    #[schema(required = true)]
    pub current_period_end: Option<DateTime<Utc>>,
    #[schema(required = true)]
    pub trial_end: Option<DateTime<Utc>>,
    pub cancel_at_period_end: bool,
    /// A change that is scheduled for the end of the paid period.
    #[schema(required = true)]
    pub scheduled_change: Option<ScheduledChangeView>,
    pub features: Vec<FeatureStandingView>,
    /// When the facts were read, by the database's clock.
    pub as_of: DateTime<Utc>,
}

#[derive(Serialize, ToSchema)]
pub struct ScheduledChangeView {
    pub plan_id: String,
    pub effective_at: DateTime<Utc>,
}

/// One feature, and what the user may use of it.
#[derive(Serialize, ToSchema)]
pub struct FeatureStandingView {
    pub feature_id: String,
    pub display_name: String,
    #[schema(value_type = FeatureKindName)]
    pub kind: FeatureKind,
    #[schema(required = true)]
    pub unit: Option<String>,
    /// Whether the user has the feature at all, used up or not.
    pub enabled: bool,
    /// Whether one more use is allowed now.
    pub allowed: bool,
    #[schema(value_type = ReasonName)]
    pub reason: Reason,
    /// Null is unlimited.
    #[schema(required = true)]
    pub limit: Option<i64>,
    pub current: i64,
    #[schema(required = true)]
    pub remaining: Option<i64>,
    pub reserved: i64,
    #[schema(value_type = PeriodName)]
    pub limit_period: PeriodKind,
    #[schema(required = true)]
    pub resets_at: Option<DateTime<Utc>>,
    #[schema(value_type = SourceName)]
    pub source: Source,
}

/// A change of plan that was made, or that would be made.
#[derive(Serialize, ToSchema)]
pub struct ChangedPlanView {
    /// Whether this is a preview, which changed nothing.
    pub preview: bool,
    pub change: PlanChangeView,
    /// The user's plan after it; in a preview, the present one.
    #[serde(flatten)]
    pub info: UserPlanInfoView,
}

#[derive(Serialize, ToSchema)]
pub struct PlanChangeView {
    pub from: String,
    pub to: String,
    #[schema(value_type = DirectionName)]
    pub direction: ChangeDirection,
    #[schema(value_type = WhenName)]
    pub when: ChangeWhen,
    pub effective_at: DateTime<Utc>,
}

impl From<&UserPlanInfo> for UserPlanInfoView {
    fn from(info: &UserPlanInfo) -> Self {
        let subscription = info.in_force.subscription.as_ref();
        Self {
            user_id: info.user_id.0,
            plan_id: info.plan.id.to_string(),
            plan_display_name: info.plan.display_name.clone(),
            price_monthly: info.plan.price_monthly.map(|price| price.to_string()),
            price_yearly: info.plan.price_yearly.map(|price| price.to_string()),
            currency: info.plan.currency.as_str().to_owned(),
            status: info.in_force.status.clone(),
            current_period_start: subscription.and_then(|live| live.current_period_start),
            current_period_end: subscription.and_then(|live| live.current_period_end),
            trial_end: subscription.and_then(|live| live.trial_end),
            cancel_at_period_end: subscription.is_some_and(|live| live.cancel_at_period_end),
            scheduled_change: info.in_force.scheduled.as_ref().map(|change| ScheduledChangeView {
                plan_id: change.plan_id.to_string(),
                effective_at: change.effective_at,
            }),
            features: info.features.iter().map(FeatureStandingView::from).collect(),
            as_of: info.in_force.as_of,
        }
    }
}

impl From<&NamedEntitlement> for FeatureStandingView {
    fn from(named: &NamedEntitlement) -> Self {
        let decision = decide(&named.entitlement, 1);
        Self {
            feature_id: decision.feature_id.into(),
            display_name: named.display_name.clone(),
            kind: named.kind,
            unit: named.unit.clone(),
            enabled: named.entitlement.access == domain::entitlements::Access::Granted,
            allowed: decision.allowed,
            reason: decision.reason,
            limit: decision.limit,
            current: decision.current,
            remaining: decision.remaining,
            reserved: decision.reserved,
            limit_period: named.entitlement.period.kind,
            resets_at: decision.resets_at,
            source: decision.source,
        }
    }
}

fn changed_view(changed: &ChangedPlan) -> ChangedPlanView {
    ChangedPlanView {
        preview: changed.preview,
        change: PlanChangeView {
            from: changed.change.from.to_string(),
            to: changed.change.to.to_string(),
            direction: changed.change.direction,
            when: changed.change.when,
            effective_at: changed.change.effective_at,
        },
        info: UserPlanInfoView::from(&changed.info),
    }
}

impl From<PlanChangeError> for Problem {
    fn from(error: PlanChangeError) -> Self {
        match error {
            PlanChangeError::UnknownUser | PlanChangeError::UnknownPlan(_) => {
                Self::not_found(sentence(&error.to_string()))
            }
            PlanChangeError::Refused(why) => refused(&why),
            PlanChangeError::Key(conflict) => conflict.into(),
            PlanChangeError::Store(error) => error.into(),
        }
    }
}

fn refused(why: &PlanChangeRefused) -> Problem {
    match why {
        PlanChangeRefused::SamePlan(_) => Problem::unprocessable("same_plan", why),
        PlanChangeRefused::Inactive(_) => Problem::unprocessable("plan_inactive", why),
        PlanChangeRefused::NoPaidPeriod => Problem::unprocessable("no_paid_period", why),
        PlanChangeRefused::BilledByStripe => Problem::conflict("billed_by_stripe", why),
        PlanChangeRefused::PaymentRequired(plan) => {
            let detail = sentence(&why.to_string());
            Problem::new(StatusCode::PAYMENT_REQUIRED, "payment_required", detail)
                .with_field("plan_id", json!(plan.as_str()))
        }
    }
}

/// Reads the caller's own plan: status, period, and each feature with its limit, usage and reset time.
#[utoipa::path(get, path = "/api/users/me/plan", tag = "entitlements", operation_id = "read_own_plan", responses(
    (status = 200, description = "The plan in force", body = UserPlanInfoView),
), security(("token" = []), ("key" = [])))]
pub async fn read_own_plan(
    me: PermittedCaller<ReadOwnPlan>,
    plans: Data<PlanService>,
) -> Result<Json<UserPlanInfoView>, Problem> {
    info_of(me.caller.user_id, plans).await
}

/// Reads any user's plan.
#[utoipa::path(get, path = "/api/admin/users/{user_id}/plan", tag = "operators", operation_id = "read_users_plan",
    params(("user_id" = Uuid, Path, description = "Whose")), responses(
    (status = 200, description = "The plan in force", body = UserPlanInfoView),
    (status = 404, description = "No such user", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn read_users_plan(
    _admin: PermittedCaller<ReadAnyUser>,
    id: Path<String>,
    plans: Data<PlanService>,
) -> Result<Json<UserPlanInfoView>, Problem> {
    info_of(user_id(&id)?, plans).await
}

async fn info_of(user_id: domain::users::UserId, plans: Data<PlanService>) -> Result<Json<UserPlanInfoView>, Problem> {
    let plans = plans.into_inner();
    let info = detached(async move { plans.user_plan_info(user_id).await }).await?;
    let info = info.ok_or_else(|| Problem::not_found("There is no such user."))?;
    Ok(Json(UserPlanInfoView::from(&info)))
}

/// Changes the caller's own plan: an upgrade at once, a downgrade at the end of the paid period unless `when` says
/// otherwise. What was used in the period stays counted.
#[utoipa::path(post, path = "/api/users/me/plan", tag = "entitlements", operation_id = "change_own_plan", request_body = ChangePlanIn,
    params(PreviewQuery, ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat answer what the first answered")),
    responses(
    (status = 200, description = "The change, and how you stand", body = ChangedPlanView),
    (status = 402, description = "The plan is paid for by subscription, and there is none", body = ProblemView),
    (status = 404, description = "No such plan", body = ProblemView),
    (status = 409, description = "The subscription is billed by Stripe", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn change_own_plan(
    me: PermittedCaller<ChangeOwnPlan>,
    key: RequestKey,
    query: ValidQuery<PreviewQuery>,
    plans: Data<PlanService>,
    input: ValidBody<ChangePlanIn>,
) -> Result<HttpResponse, Problem> {
    let user_id = me.caller.user_id;
    let once = key.ignored_if(query.0.preview).once(&me.caller, &input.bytes, StatusCode::OK, changed_view);
    let wish = PlanWish { plan_id: plan_id(&input.body.plan_id)?, when: input.body.when, preview: query.0.preview };
    let plans = plans.into_inner();
    Ok(answer(detached(async move { plans.change_plan(user_id, &wish, &once).await }).await?))
}

/// Keeps the present plan: cancels a change that is scheduled for the end of the paid period.
#[utoipa::path(delete, path = "/api/users/me/plan/scheduled", tag = "entitlements", operation_id = "keep_own_plan", responses(
    (status = 204, description = "Nothing waits any more"),
    (status = 404, description = "Nothing was waiting", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn keep_own_plan(
    me: PermittedCaller<ChangeOwnPlan>,
    plans: Data<PlanService>,
) -> Result<HttpResponse, Problem> {
    let plans = plans.into_inner();
    let dropped = detached(async move { plans.keep_plan(me.caller.user_id).await }).await?;
    if dropped {
        Ok(HttpResponse::NoContent().finish())
    } else {
        Err(Problem::not_found("No change of plan was waiting."))
    }
}

/// Grants a plan to a user; nothing is owed for it.
#[utoipa::path(post, path = "/api/admin/users/{user_id}/plan", tag = "operators", operation_id = "grant_plan", request_body = GrantPlanIn,
    params(PreviewQuery, ("user_id" = Uuid, Path, description = "Whose"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat answer what the first answered")),
    responses(
    (status = 200, description = "The change, and how the user stands", body = ChangedPlanView),
    (status = 404, description = "No such user or plan", body = ProblemView),
    (status = 409, description = "The subscription is billed by Stripe", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn grant_plan(
    admin: RecentCaller<WriteAnyUser>,
    id: Path<String>,
    key: RequestKey,
    query: ValidQuery<PreviewQuery>,
    plans: Data<PlanService>,
    input: ValidBody<GrantPlanIn>,
) -> Result<HttpResponse, Problem> {
    let (actor, user_id) = (admin.caller.user_id, user_id(&id)?);
    let once = key.ignored_if(query.0.preview).once(&admin.caller, &input.bytes, StatusCode::OK, changed_view);
    let GrantPlanIn { plan_id: target, when, reason } = input.body;
    let wish = PlanWish { plan_id: plan_id(&target)?, when, preview: query.0.preview };
    let plans = plans.into_inner();
    Ok(answer(detached(async move { plans.grant_plan(actor, reason, user_id, &wish, &once).await }).await?))
}
