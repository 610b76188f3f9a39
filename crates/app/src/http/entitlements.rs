//! Entitlements: whether a user may use a feature now. Overrides for single customers.

use actix_web::HttpResponse;
use actix_web::web::{Data, Json, Path};
use chrono::{DateTime, Utc};
use domain::entitlements::{Allowance, Decision, FeatureOverride, Reason, Source};
use domain::features::FeatureId;
use domain::identity::{Permission, UsageSubject};
use domain::users::UserId;
use serde::{Deserialize, Serialize};
use services::entitlements::{EntitlementError, EntitlementService};
use services::identity::callers::CallerService;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use validator::Validate;

use super::caller::{CheckUsage, PermittedCaller, ReadAnyUser, WriteAnyUser, not_served};
use super::pages::ListView;
use super::plans::feature_id;
use super::problem::{Problem, ProblemView, sentence};
use super::recent::RecentCaller;
use super::spawn::detached;
use super::users::user_id;
use super::validation::{ValidBody, ValidQuery, in_calendar, one_line};

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckIn {
    /// The user; the caller by default. Another user needs `usage:check` with `on_behalf`, or an administrator.
    #[serde(default)]
    user_id: Option<Uuid>,
    #[validate(length(min = 1, max = 50))]
    #[schema(example = "ai_requests", min_length = 1, max_length = 50)]
    feature_id: String,
    /// The wanted amount; 1 by default.
    #[serde(default, deserialize_with = "super::validation::whole")]
    #[validate(range(min = 1))]
    #[schema(minimum = 1)]
    amount: Option<i64>,
    #[serde(default)]
    #[schema(inline, required = false)]
    consistency: Consistency,
}

/// How fresh the facts of a decision are.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// At most a second behind the database; `as_of` is when the oldest part was read.
    #[default]
    Snapshot,
    /// As the database has them now.
    Strong,
}

#[derive(Default, Deserialize, Validate, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ConsistencyQuery {
    /// `strong` reads the database; `snapshot`, the default, may be a second behind it.
    #[serde(default)]
    #[param(inline, required = false)]
    consistency: Consistency,
}

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OverrideIn {
    enabled: bool,
    /// Null or left out is unlimited; 0 is a limit.
    #[serde(default, deserialize_with = "super::validation::whole")]
    #[validate(range(min = 0, message = "must not be negative; null is unlimited"))]
    #[schema(minimum = 0)]
    limit_value: Option<i64>,
    /// Stored in the audit trail.
    #[serde(default)]
    #[validate(length(min = 1, max = 500), custom(function = "one_line"))]
    #[schema(
        pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$",
        min_length = 1,
        max_length = 500
    )]
    reason: Option<String>,
    /// When the plan's own limit applies again; never by default.
    #[serde(default)]
    #[validate(custom(function = "in_calendar"))]
    expires_at: Option<DateTime<Utc>>,
}

/// The reason of the decision.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum ReasonName {
    Ok,
    FeatureDisabled,
    FeatureNotInPlan,
    LimitReached,
    InsufficientTokens,
    SubscriptionInactive,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum SourceName {
    Plan,
    Override,
}

/// The decision, with every figure that it depends on.
#[derive(Serialize, ToSchema)]
pub struct DecisionView {
    pub allowed: bool,
    /// The amount used in this period.
    pub current: i64,
    /// Null is unlimited.
    #[schema(required = true)]
    pub limit: Option<i64>,
    /// Never below zero; null is unlimited.
    #[schema(required = true)]
    pub remaining: Option<i64>,
    /// The reserved amount; it counts against the limit too.
    pub reserved: i64,
    #[schema(value_type = ReasonName)]
    pub reason: Reason,
    pub feature_id: String,
    pub plan_id: String,
    #[schema(value_type = SourceName)]
    pub source: Source,
    pub period_start: DateTime<Utc>,
    /// When the counting starts again; null for a lifetime.
    #[schema(required = true)]
    pub resets_at: Option<DateTime<Utc>>,
    /// When the oldest part of the facts was read, by the database's clock.
    pub as_of: DateTime<Utc>,
}

impl From<Decision> for DecisionView {
    fn from(decision: Decision) -> Self {
        Self {
            allowed: decision.allowed,
            current: decision.current,
            limit: decision.limit,
            remaining: decision.remaining,
            reserved: decision.reserved,
            reason: decision.reason,
            feature_id: decision.feature_id.into(),
            plan_id: decision.plan_id.into(),
            source: decision.source,
            period_start: decision.period_start,
            resets_at: decision.resets_at,
            as_of: decision.as_of,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub struct OverrideView {
    pub feature_id: String,
    pub enabled: bool,
    /// Null is unlimited.
    #[schema(required = true)]
    pub limit_value: Option<i64>,
    #[schema(required = true)]
    pub reason: Option<String>,
    #[schema(required = true)]
    pub expires_at: Option<DateTime<Utc>>,
}

impl From<&FeatureOverride> for OverrideView {
    fn from(exception: &FeatureOverride) -> Self {
        Self {
            feature_id: exception.feature_id.to_string(),
            enabled: exception.enabled,
            limit_value: exception.allowance.limit(),
            reason: exception.reason.clone(),
            expires_at: exception.expires_at,
        }
    }
}

impl From<EntitlementError> for Problem {
    fn from(error: EntitlementError) -> Self {
        match error {
            EntitlementError::Store(error) => error.into(),
            absent => Self::not_found(sentence(&absent.to_string())),
        }
    }
}

/// Checks whether the caller may use a feature once more now.
#[utoipa::path(get, path = "/api/users/me/features/{feature_id}", tag = "entitlements", operation_id = "check_feature",
    params(("feature_id" = String, Path, description = "The feature"), ConsistencyQuery), responses(
    (status = 200, description = "The answer, also where it is no", body = DecisionView),
    (status = 404, description = "No such feature", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn check_feature(
    me: PermittedCaller<CheckUsage>,
    id: Path<String>,
    query: ValidQuery<ConsistencyQuery>,
    entitlements: Data<EntitlementService>,
) -> Result<Json<DecisionView>, Problem> {
    let (subject, id) = (UsageSubject::Oneself(me.caller.user_id), feature_id(&id)?);
    decide(subject, id, 1, query.0.consistency, entitlements).await
}

/// Checks whether the caller or another user may use an amount of a feature now. A check changes nothing.
#[utoipa::path(post, path = "/api/entitlements/check", tag = "entitlements", operation_id = "check_entitlement", request_body = CheckIn,
    params(ConsistencyQuery), responses(
    (status = 200, description = "The answer, also where it is no", body = DecisionView),
    (status = 404, description = "No such feature, or no such user", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn check_entitlement(
    asking: PermittedCaller<CheckUsage>,
    query: ValidQuery<ConsistencyQuery>,
    entitlements: Data<EntitlementService>,
    callers: Data<CallerService>,
    input: ValidBody<CheckIn>,
) -> Result<Json<DecisionView>, Problem> {
    let CheckIn { user_id, feature_id: id, amount, consistency } = input.body;
    let subject = asking.caller.acting_for(user_id.map(UserId), Permission::UsageCheck)?;
    if let UsageSubject::Another(user_id) = subject {
        callers.admit_subject(user_id).await.map_err(not_served)?;
    }
    // In the query or in the body: `strong` in either of them counts.
    let consistency = if query.0.consistency == Consistency::Strong { Consistency::Strong } else { consistency };
    decide(subject, feature_id(&id)?, amount.unwrap_or(1), consistency, entitlements).await
}

async fn decide(
    subject: UsageSubject,
    id: FeatureId,
    amount: i64,
    consistency: Consistency,
    entitlements: Data<EntitlementService>,
) -> Result<Json<DecisionView>, Problem> {
    let decision = match consistency {
        // Not spawned: what is not cached is read by a fetch in a task of its own.
        Consistency::Snapshot => entitlements.check(subject, &id, amount).await?,
        Consistency::Strong => {
            let entitlements = entitlements.into_inner();
            detached(async move { entitlements.check_strongly(subject, &id, amount).await }).await?
        }
    };
    Ok(Json(decision.into()))
}

/// Lists the overrides of one customer, including expired ones.
#[utoipa::path(get, path = "/api/admin/users/{user_id}/overrides", tag = "operators", operation_id = "list_overrides",
    params(("user_id" = Uuid, Path, description = "Whose")), responses(
    (status = 200, description = "The exceptions", body = ListView<OverrideView>),
    (status = 404, description = "No such user", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn list_overrides(
    _admin: PermittedCaller<ReadAnyUser>,
    id: Path<String>,
    entitlements: Data<EntitlementService>,
) -> Result<Json<ListView<OverrideView>>, Problem> {
    let id = user_id(&id)?;
    let entitlements = entitlements.into_inner();
    let found = detached(async move { entitlements.list_overrides(id).await }).await?;
    Ok(Json(ListView::whole(found.iter().map(OverrideView::from).collect())))
}

/// Sets one customer's override: it replaces the plan's switch and limit for the feature.
#[utoipa::path(put, path = "/api/admin/users/{user_id}/overrides/{feature_id}", tag = "operators", operation_id = "grant_override",
    request_body = OverrideIn,
    params(("user_id" = Uuid, Path, description = "Whose"), ("feature_id" = String, Path, description = "The feature")),
    responses(
    (status = 200, description = "The exception", body = OverrideView),
    (status = 404, description = "No such user or feature", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn grant_override(
    admin: RecentCaller<WriteAnyUser>,
    ids: Path<(String, String)>,
    entitlements: Data<EntitlementService>,
    input: ValidBody<OverrideIn>,
) -> Result<Json<OverrideView>, Problem> {
    let (user, feature) = ids.into_inner();
    let OverrideIn { enabled, limit_value, reason, expires_at } = input.body;
    let allowance =
        Allowance::try_new(limit_value).map_err(|why| Problem::invalid_field("limit_value", why.to_string()))?;
    let exception = FeatureOverride {
        user_id: user_id(&user)?,
        feature_id: feature_id(&feature)?,
        enabled,
        allowance,
        reason,
        expires_at,
    };
    let view = OverrideView::from(&exception);
    let entitlements = entitlements.into_inner();
    detached(async move { entitlements.grant_override(admin.caller.user_id, &exception).await }).await?;
    Ok(Json(view))
}

/// Removes an override.
#[utoipa::path(delete, path = "/api/admin/users/{user_id}/overrides/{feature_id}", tag = "operators", operation_id = "revoke_override",
    params(("user_id" = Uuid, Path, description = "Whose"), ("feature_id" = String, Path, description = "The feature")),
    responses(
    (status = 204, description = "The plan's own limit holds again"),
    (status = 404, description = "No such exception", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn revoke_override(
    admin: RecentCaller<WriteAnyUser>,
    ids: Path<(String, String)>,
    entitlements: Data<EntitlementService>,
) -> Result<HttpResponse, Problem> {
    let (user, feature) = ids.into_inner();
    let (user, feature) = (user_id(&user)?, feature_id(&feature)?);
    let entitlements = entitlements.into_inner();
    detached(async move { entitlements.revoke_override(admin.caller.user_id, user, &feature).await }).await?;
    Ok(HttpResponse::NoContent().finish())
}
