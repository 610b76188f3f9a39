//! AI usage: usage and cost of model calls, of the caller, of another user, of all users.

use actix_web::web::{Data, Json};
use chrono::{DateTime, NaiveDate, Utc};
use domain::ai::ProviderId;
use domain::ai_usage::{AiTotals, AiUsageOf, RecordedModel};
use domain::chat::ChatSessionId;
use domain::identity::UsageSubject;
use domain::users::UserId;
use serde::{Deserialize, Serialize};
use services::ai_usage::{AiUsage, AiUsageError, AiUsageQuestion, AiUsageService, CallsLeft};
use services::prices::PriceService;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use validator::Validate;

use super::caller::{CheckUsage, PermittedCaller, ReadAnyUsage};
use super::prices::{ProviderName, known_provider};
use super::problem::{Problem, ProblemView, sentence};
use super::spawn::detached;
use super::validation::{ValidQuery, in_calendar};

/// The name of the row that sums up the remaining models.
const OTHER_MODELS: &str = "other";

#[derive(Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AiUsageQuery {
    /// From this time; by default from the start of the calendar month (UTC).
    #[validate(custom(function = "in_calendar"))]
    from: Option<DateTime<Utc>>,
    /// Up to this time, exclusive; now by default, or the end of the month if `from` is missing too.
    #[validate(custom(function = "in_calendar"))]
    to: Option<DateTime<Utc>>,
    /// Only calls to this provider.
    #[param(value_type = Option<ProviderName>, inline)]
    provider: Option<ProviderId>,
    /// Only calls to this model.
    #[validate(length(min = 1, max = 200))]
    #[param(min_length = 1, max_length = 200)]
    model: Option<String>,
    /// Only calls of this session.
    session_id: Option<Uuid>,
}

#[derive(Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AnyAiUsageQuery {
    /// The user; all users together by default.
    user_id: Option<Uuid>,
    /// From this time; by default from the start of the calendar month (UTC).
    #[validate(custom(function = "in_calendar"))]
    from: Option<DateTime<Utc>>,
    /// Up to this time, exclusive; now by default, or the end of the month if `from` is missing too.
    #[validate(custom(function = "in_calendar"))]
    to: Option<DateTime<Utc>>,
    /// Only calls to this provider.
    #[param(value_type = Option<ProviderName>, inline)]
    provider: Option<ProviderId>,
    /// Only calls to this model.
    #[validate(length(min = 1, max = 200))]
    #[param(min_length = 1, max_length = 200)]
    model: Option<String>,
    /// Only calls of this session.
    session_id: Option<Uuid>,
}

/// Tokens of model calls.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct AiTokensView {
    /// Tokens of the prompts, read from a cache or not.
    pub input: i64,
    pub output: i64,
    /// Tokens of the prompts that were read from a cache.
    pub cached: i64,
    pub total: i64,
}

/// The sums of some calls.
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
    pub provider: ProviderId,
    #[serde(flatten)]
    pub totals: AiTotalsView,
}

#[derive(Serialize, ToSchema)]
pub struct ModelUsageView {
    /// Null in the row that sums up the remaining models.
    #[schema(value_type = Option<ProviderName>, required = true)]
    pub provider: Option<ProviderId>,
    /// Null if the record names none; `other` without a provider is all models beyond the hundred most expensive ones.
    #[schema(required = true)]
    pub model: Option<String>,
    #[serde(flatten)]
    pub totals: AiTotalsView,
}

#[derive(Serialize, ToSchema)]
pub struct DayUsageView {
    /// A day in UTC.
    pub day: NaiveDate,
    #[serde(flatten)]
    pub totals: AiTotalsView,
}

#[derive(Serialize, ToSchema)]
pub struct MonthUsageView {
    /// A month in UTC.
    #[schema(example = "2026-11")]
    pub month: String,
    #[serde(flatten)]
    pub totals: AiTotalsView,
}

/// Usage and cost of model calls, in all and divided, and how many more are allowed.
#[derive(Serialize, ToSchema)]
pub struct AiUsageView {
    pub from: DateTime<Utc>,
    /// Exclusive.
    pub to: DateTime<Utc>,
    #[serde(flatten)]
    pub totals: AiTotalsView,
    /// The most expensive first.
    pub by_provider: Vec<ProviderUsageView>,
    /// The most expensive first: a hundred models, and the others in one row.
    pub by_model: Vec<ModelUsageView>,
    /// The latest first; a day without calls has no row.
    pub by_day: Vec<DayUsageView>,
    /// The latest first.
    pub by_month: Vec<MonthUsageView>,
    /// How many calls the plan allows in its period. Null is unlimited; for all users together it is always null.
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

/// Usage and cost of the caller's own model calls, and how many more the plan allows.
#[utoipa::path(get, path = "/api/ai/usage", tag = "ai", operation_id = "read_ai_usage", params(AiUsageQuery), responses(
    (status = 200, description = "The sums", body = AiUsageView),
), security(("token" = []), ("key" = [])))]
pub async fn read_usage(
    me: PermittedCaller<CheckUsage>,
    query: ValidQuery<AiUsageQuery>,
    usage: Data<AiUsageService>,
    prices: Data<PriceService>,
) -> Result<Json<AiUsageView>, Problem> {
    let AiUsageQuery { from, to, provider, model, session_id } = query.0;
    let provider = known_provider(provider, prices.providers())?;
    let question = AiUsageQuestion { provider, model, session_id: session_id.map(ChatSessionId), from, to };
    let (subject, usage) = (UsageSubject::Oneself(me.caller.user_id), usage.into_inner());
    Ok(Json(detached(async move { usage.sum(subject, &question).await }).await?.into()))
}

/// Usage and cost of one user's model calls, or of all users' together.
#[utoipa::path(get, path = "/api/admin/ai/usage", tag = "operators", operation_id = "read_any_ai_usage",
    params(AnyAiUsageQuery), responses(
    (status = 200, description = "The sums", body = AiUsageView),
    (status = 404, description = "No such user", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn read_any_usage(
    _admin: PermittedCaller<ReadAnyUsage>,
    query: ValidQuery<AnyAiUsageQuery>,
    usage: Data<AiUsageService>,
    prices: Data<PriceService>,
) -> Result<Json<AiUsageView>, Problem> {
    let AnyAiUsageQuery { user_id, from, to, provider, model, session_id } = query.0;
    let provider = known_provider(provider, prices.providers())?;
    let question = AiUsageQuestion { provider, model, session_id: session_id.map(ChatSessionId), from, to };
    let usage = usage.into_inner();
    let summed = detached(async move {
        match user_id {
            Some(user_id) => usage.sum(UsageSubject::Another(UserId(user_id)), &question).await,
            None => usage.sum_all(&question).await,
        }
    });
    Ok(Json(summed.await?.into()))
}
