//! AI usage: what calls of models used and cost, of oneself, of another, of everybody.

use actix_web::web::{Data, Json};
use chrono::{DateTime, NaiveDate, Utc};
use domain::ai::Provider;
use domain::ai_usage::{AiTotals, AiUsageOf, RecordedModel};
use domain::chat::ChatSessionId;
use domain::identity::Subject;
use domain::users::UserId;
use serde::{Deserialize, Serialize};
use services::ai_usage::{AiUsage, AiUsageError, AiUsageQuestion, AiUsageService, CallsLeft};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use validator::Validate;

use super::caller::{CheckUsage, Permitted, ReadAnyUsage};
use super::detached::detached;
use super::prices::ProviderName;
use super::problem::{Problem, ProblemView, sentence};
use super::valid::{ValidQuery, in_calendar};

/// What the models are called together that are not told apart.
const OTHER_MODELS: &str = "other";

#[derive(Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AiUsageQuery {
    /// From this time; from the beginning of the calendar month (UTC) unless told.
    #[validate(custom(function = "in_calendar"))]
    from: Option<DateTime<Utc>>,
    /// Up to this time, which is not in it; up to now unless told, or with neither to the end of the month.
    #[validate(custom(function = "in_calendar"))]
    to: Option<DateTime<Utc>>,
    /// Only calls of this provider.
    #[param(value_type = Option<ProviderName>, inline)]
    provider: Option<Provider>,
    /// Only calls of this model.
    #[validate(length(min = 1, max = 200))]
    #[param(min_length = 1, max_length = 200)]
    model: Option<String>,
    /// Only calls of this conversation.
    session_id: Option<Uuid>,
}

#[derive(Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AnyAiUsageQuery {
    /// Whose calls; everybody's together unless told.
    user_id: Option<Uuid>,
    /// From this time; from the beginning of the calendar month (UTC) unless told.
    #[validate(custom(function = "in_calendar"))]
    from: Option<DateTime<Utc>>,
    /// Up to this time, which is not in it; up to now unless told, or with neither to the end of the month.
    #[validate(custom(function = "in_calendar"))]
    to: Option<DateTime<Utc>>,
    /// Only calls of this provider.
    #[param(value_type = Option<ProviderName>, inline)]
    provider: Option<Provider>,
    /// Only calls of this model.
    #[validate(length(min = 1, max = 200))]
    #[param(min_length = 1, max_length = 200)]
    model: Option<String>,
    /// Only calls of this conversation.
    session_id: Option<Uuid>,
}

/// Tokens of models.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct AiTokensView {
    /// Of the prompts, read from a cache or not.
    pub input: i64,
    pub output: i64,
    /// What of the prompts was read from a cache.
    pub cached: i64,
    pub total: i64,
}

/// What some calls came to.
#[derive(Serialize, ToSchema)]
pub struct AiTotalsView {
    pub requests: i64,
    pub tokens: AiTokensView,
    /// US dollars, exact, as text.
    #[schema(example = "0.00125")]
    pub cost_usd: String,
}

#[derive(Serialize, ToSchema)]
pub struct ProviderUsageView {
    #[schema(value_type = ProviderName)]
    pub provider: Provider,
    #[serde(flatten)]
    pub totals: AiTotalsView,
}

#[derive(Serialize, ToSchema)]
pub struct ModelUsageView {
    /// Null for the models that are not told apart.
    #[schema(value_type = Option<ProviderName>, required = true)]
    pub provider: Option<Provider>,
    /// Null where the record names none; `other` without a provider is all models beyond the hundred that cost most.
    #[schema(required = true)]
    pub model: Option<String>,
    #[serde(flatten)]
    pub totals: AiTotalsView,
}

#[derive(Serialize, ToSchema)]
pub struct DayUsageView {
    /// A day of UTC.
    pub day: NaiveDate,
    #[serde(flatten)]
    pub totals: AiTotalsView,
}

#[derive(Serialize, ToSchema)]
pub struct MonthUsageView {
    /// A month of UTC.
    #[schema(example = "2026-11")]
    pub month: String,
    #[serde(flatten)]
    pub totals: AiTotalsView,
}

/// What calls of models used and cost, in all and divided, and how many more are allowed.
#[derive(Serialize, ToSchema)]
pub struct AiUsageView {
    pub from: DateTime<Utc>,
    /// Not in it.
    pub to: DateTime<Utc>,
    #[serde(flatten)]
    pub totals: AiTotalsView,
    /// What cost most comes first.
    pub by_provider: Vec<ProviderUsageView>,
    /// What cost most comes first; the hundred that cost most, and the others in one row.
    pub by_model: Vec<ModelUsageView>,
    /// The latest comes first; a day without calls has no row.
    pub by_day: Vec<DayUsageView>,
    /// The latest comes first.
    pub by_month: Vec<MonthUsageView>,
    /// How many calls the plan allows in its period. Null is unlimited; of everybody it is always null.
    #[schema(required = true)]
    pub limit: Option<i64>,
    /// How many of them are left.
    #[schema(required = true)]
    pub remaining: Option<i64>,
    /// When the plan's period ends.
    #[schema(required = true)]
    pub resets_at: Option<DateTime<Utc>>,
}

impl From<AiTotals> for AiTotalsView {
    fn from(totals: AiTotals) -> Self {
        let AiTotals { requests, input_tokens, output_tokens, cached_tokens, total_tokens, cost } = totals;
        let tokens =
            AiTokensView { input: input_tokens, output: output_tokens, cached: cached_tokens, total: total_tokens };
        Self { requests, tokens, cost_usd: cost.to_string() }
    }
}

impl From<AiUsageOf<RecordedModel>> for ModelUsageView {
    fn from(usage: AiUsageOf<RecordedModel>) -> Self {
        Self { provider: Some(usage.of.provider), model: usage.of.model, totals: usage.totals.into() }
    }
}

impl From<AiUsage> for AiUsageView {
    fn from(usage: AiUsage) -> Self {
        let AiUsage { range, sums, left } = usage;
        let (limit, remaining, resets_at) = match left {
            CallsLeft::Decided(decision) => (decision.limit, decision.remaining, decision.resets_at),
            CallsLeft::NoFeature => (Some(0), Some(0), None),
            CallsLeft::OfEverybody => (None, None, None),
        };
        let other = sums.other_models.map(|totals| ModelUsageView {
            provider: None,
            model: Some(OTHER_MODELS.to_owned()),
            totals: totals.into(),
        });
        let by_provider = sums.by_provider.into_iter();
        let by_day = sums.by_day.into_iter();
        let by_month = sums.by_month.into_iter();
        Self {
            from: range.from,
            to: range.to,
            totals: sums.all.into(),
            by_provider: by_provider
                .map(|usage| ProviderUsageView { provider: usage.of, totals: usage.totals.into() })
                .collect(),
            by_model: sums.by_model.into_iter().map(ModelUsageView::from).chain(other).collect(),
            by_day: by_day.map(|usage| DayUsageView { day: usage.of, totals: usage.totals.into() }).collect(),
            by_month: by_month
                .map(|usage| MonthUsageView {
                    month: usage.of.format("%Y-%m").to_string(),
                    totals: usage.totals.into(),
                })
                .collect(),
            limit,
            remaining,
            resets_at,
        }
    }
}

impl From<AiUsageError> for Problem {
    fn from(error: AiUsageError) -> Self {
        match error {
            AiUsageError::Store(error) => error.into(),
            AiUsageError::Range(why) => Self::invalid_field("from", why.to_string()),
            AiUsageError::UnknownUser => Self::not_found(sentence(&error.to_string())),
        }
    }
}

/// What the own calls of models used and cost, and how many more the plan allows.
#[utoipa::path(get, path = "/api/ai/usage", tag = "ai", operation_id = "read_ai_usage", params(AiUsageQuery), responses(
    (status = 200, description = "The sums", body = AiUsageView),
), security(("token" = []), ("key" = [])))]
pub async fn read_usage(
    me: Permitted<CheckUsage>,
    query: ValidQuery<AiUsageQuery>,
    usage: Data<AiUsageService>,
) -> Result<Json<AiUsageView>, Problem> {
    let AiUsageQuery { from, to, provider, model, session_id } = query.0;
    let question = AiUsageQuestion { provider, model, session_id: session_id.map(ChatSessionId), from, to };
    let (subject, usage) = (Subject::Oneself(me.caller.user_id), usage.into_inner());
    Ok(Json(detached(async move { usage.sum(subject, &question).await }).await?.into()))
}

/// What anybody's calls of models used and cost, or everybody's together.
#[utoipa::path(get, path = "/api/admin/ai/usage", tag = "operators", operation_id = "read_any_ai_usage",
    params(AnyAiUsageQuery), responses(
    (status = 200, description = "The sums", body = AiUsageView),
    (status = 404, description = "No such user", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn read_any_usage(
    _admin: Permitted<ReadAnyUsage>,
    query: ValidQuery<AnyAiUsageQuery>,
    usage: Data<AiUsageService>,
) -> Result<Json<AiUsageView>, Problem> {
    let AnyAiUsageQuery { user_id, from, to, provider, model, session_id } = query.0;
    let question = AiUsageQuestion { provider, model, session_id: session_id.map(ChatSessionId), from, to };
    let usage = usage.into_inner();
    let summed = detached(async move {
        match user_id {
            Some(user_id) => usage.sum(Subject::Another(UserId(user_id)), &question).await,
            None => usage.sum_all(&question).await,
        }
    });
    Ok(Json(summed.await?.into()))
}
