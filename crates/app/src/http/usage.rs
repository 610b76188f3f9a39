//! Usage: consuming, one at a time or up to a thousand. A 200 means that it is counted and durable.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{Data, Json};
use domain::entitlements::{Decision, Reason};
use domain::features::FeatureId;
use domain::idempotency::IdempotencyKey;
use domain::identity::{Caller, Credential, Permission};
use domain::users::UserId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use services::usage::UsageService;
use services::usage::batch::{ConsumeCommand, ConsumeError, Consumed};
use utoipa::ToSchema;
use uuid::Uuid;
use validator::Validate;

use super::caller::{Permitted, WriteUsage};
use super::detached::detached;
use super::entitlements::DecisionView;
use super::once::{REPLAYED, RequestKey, one_key};
use super::plans::feature_id;
use super::problem::{Problem, ProblemView, sentence};
use super::valid::Valid;

/// How many consumptions one request may bring.
pub const BATCH_MAX: usize = 1_000;

/// The largest body of a batch, in bytes: a thousand items with everything in them that they may have.
pub const BATCH_BODY_LIMIT: usize = 1024 * 1024;

#[derive(Clone, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsumeIn {
    /// Oneself unless told. Another needs `usage:write` with `on_behalf`, or an administrator.
    #[serde(default)]
    user_id: Option<Uuid>,
    #[validate(length(min = 1, max = 50))]
    #[schema(example = "ai_requests", min_length = 1, max_length = 50)]
    feature_id: String,
    /// How much; 1 unless told.
    #[serde(default, deserialize_with = "super::valid::whole")]
    #[validate(range(min = 1))]
    #[schema(minimum = 1)]
    amount: Option<i64>,
    /// Makes a repeat count once. The header `Idempotency-Key` says the same; without either, one is made.
    #[serde(default)]
    #[validate(length(min = 1, max = 255))]
    #[schema(min_length = 1, max_length = 255, pattern = "^[!-~]([ -~]*[!-~])?$")]
    idempotency_key: Option<String>,
}

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsumeBatchIn {
    #[validate(nested)]
    #[schema(min_items = 1, max_items = 1_000)]
    items: Vec<ConsumeIn>,
}

/// A granted consumption: the numbers as they are after it.
#[derive(Serialize, ToSchema)]
pub struct ConsumedView {
    #[serde(flatten)]
    pub decision: DecisionView,
    /// The key under which it is kept: the one that was sent, or the one that was made.
    pub idempotency_key: String,
}

#[derive(Serialize, ToSchema)]
pub struct ConsumedBatchView {
    /// A result for each item, in their order.
    pub data: Vec<ConsumedItemView>,
}

#[derive(Serialize, ToSchema)]
pub struct ConsumedItemView {
    /// What a request of its own would have been answered with.
    pub status: u16,
    /// Whether this is the first outcome again.
    pub replayed: bool,
    /// Where it was granted.
    #[schema(required = true)]
    pub consumed: Option<ConsumedView>,
    /// Where it was not, with the numbers of the decision.
    #[schema(required = true, value_type = Option<Object>)]
    pub problem: Option<Value>,
}

impl From<ConsumeError> for Problem {
    fn from(error: ConsumeError) -> Self {
        match &error {
            ConsumeError::UnknownUser | ConsumeError::UnknownFeature(_) => {
                Self::not_found(sentence(&error.to_string()))
            }
            ConsumeError::NotMetered(_) => Self::invalid_field("amount", "is 1 for a feature that is had or not"),
            ConsumeError::KeyReused => Self::unprocessable("idempotency_key_reused", &error),
            ConsumeError::QueueFull | ConsumeError::Contended => {
                let detail = format!("{} Nothing was counted; send it again.", sentence(&error.to_string()));
                Self::unavailable("busy", detail)
            }
            ConsumeError::Away(why) => ports::store::StoreError::Unavailable(why.clone()).into(),
            ConsumeError::InDoubt(why) => ports::store::StoreError::InDoubt(why.clone()).into(),
            ConsumeError::Fault(why) => Self::internal(why),
        }
    }
}

/// A refusal as a problem, with every number that it rests on.
fn refusal(decision: Decision) -> Problem {
    let (limit, current, resets_at) = (decision.limit.unwrap_or_default(), decision.current, decision.resets_at);
    let until = resets_at.map_or_else(String::new, |at| format!(" It starts again at {}.", at.to_rfc3339()));
    let wait = resets_at.map(|at| (at - decision.as_of).num_seconds().max(1).cast_unsigned());
    let (status, code, detail) = match decision.reason {
        Reason::Ok | Reason::LimitReached => {
            (StatusCode::TOO_MANY_REQUESTS, "limit_reached", format!("{current} of {limit} are used or held.{until}"))
        }
        Reason::InsufficientTokens => {
            let detail = format!("{current} of {limit} are used, and the tokens do not pay for the rest.{until}");
            (StatusCode::PAYMENT_REQUIRED, "insufficient_tokens", detail)
        }
        Reason::FeatureNotInPlan => {
            let detail =
                format!("The plan `{}` does not have the feature `{}`.", decision.plan_id, decision.feature_id);
            (StatusCode::FORBIDDEN, "feature_not_in_plan", detail)
        }
        Reason::FeatureDisabled => (
            StatusCode::FORBIDDEN,
            "feature_disabled",
            format!("The feature `{}` is switched off.", decision.feature_id),
        ),
        Reason::SubscriptionInactive => {
            let detail = format!("The subscription that has the feature `{}` has lapsed.", decision.feature_id);
            (StatusCode::FORBIDDEN, "subscription_inactive", detail)
        }
    };
    let mut problem = Problem::new(status, code, detail);
    if let (StatusCode::TOO_MANY_REQUESTS, Some(seconds)) = (status, wait) {
        problem = problem.with_retry_after(seconds);
    }
    problem.fields = numbers(decision);
    problem
}

fn numbers(decision: Decision) -> Map<String, Value> {
    match serde_json::to_value(DecisionView::from(decision)) {
        Ok(Value::Object(fields)) => fields,
        // A decision is an object of numbers and words; JSON can say it.
        _ => Map::new(),
    }
}

/// Consumes. 200 means counted and durable; a refusal counts nothing and claims no key.
#[utoipa::path(post, path = "/api/usage", tag = "usage", operation_id = "consume", request_body = ConsumeIn,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat count once; the body's key says the same")),
    responses(
    (status = 200, description = "Counted", body = ConsumedView),
    (status = 402, description = "The limit is reached, and the tokens do not pay for more", body = ProblemView),
    (status = 404, description = "No such feature, or no such user", body = ProblemView),
    (status = 429, description = "The limit is reached, with the numbers and the reset time", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn consume(
    asking: Permitted<WriteUsage>,
    key: RequestKey,
    usage: Data<UsageService>,
    input: Valid<ConsumeIn>,
) -> Result<HttpResponse, Problem> {
    let command = command(&asking.caller, &input.body, key.into_key(), &usage)?;
    let key = command.key.as_str().to_owned();
    let usage = usage.into_inner();
    let consumed = detached(async move { usage.consume(command).await }).await?;
    let replayed = consumed.replayed;
    let view = granted(consumed, key)?;
    let mut response = HttpResponse::Ok();
    response.insert_header((CACHE_CONTROL, "no-store"));
    if replayed {
        response.insert_header((REPLAYED.clone(), "true"));
    }
    Ok(response.json(view))
}

/// Consumes up to a thousand at once, each for itself: a refusal of one is no refusal of the others.
#[utoipa::path(post, path = "/api/usage/batch", tag = "usage", operation_id = "consume_batch", request_body = ConsumeBatchIn, responses(
    (status = 200, description = "A result for each", body = ConsumedBatchView),
), security(("token" = []), ("key" = [])))]
pub async fn consume_batch(
    asking: Permitted<WriteUsage>,
    usage: Data<UsageService>,
    input: Valid<ConsumeBatchIn>,
) -> Result<Json<ConsumedBatchView>, Problem> {
    if !(1..=BATCH_MAX).contains(&input.body.items.len()) {
        return Err(Problem::invalid_field("items", format!("has 1 to {BATCH_MAX} items")));
    }
    let mut refused = Vec::new();
    let mut commands = Vec::new();
    for item in input.body.items {
        match command(&asking.caller, &item, None, &usage) {
            Ok(command) => {
                refused.push(None);
                commands.push(command);
            }
            Err(problem) => refused.push(Some(problem)),
        }
    }
    let keys: Vec<_> = commands.iter().map(|command| command.key.as_str().to_owned()).collect();
    let usage = usage.into_inner();
    let answers = detached(async move { Ok::<_, Problem>(usage.consume_all(commands).await) }).await?;
    let mut answers = answers.into_iter().zip(keys);
    let data = refused
        .into_iter()
        .map(|refused| match (refused, &mut answers) {
            (Some(problem), _) => item(Err(problem), false),
            (None, answers) => answers.next().map_or_else(
                || item(Err(Problem::internal(&"an answer of a batch is missing")), false),
                |(answer, key)| {
                    let replayed = answer.as_ref().is_ok_and(|consumed| consumed.replayed);
                    item(answer.map_err(Problem::from).and_then(|consumed| granted(consumed, key)), replayed)
                },
            ),
        })
        .collect();
    Ok(Json(ConsumedBatchView { data }))
}

fn item(answer: Result<ConsumedView, Problem>, replayed: bool) -> ConsumedItemView {
    match answer {
        Ok(consumed) => ConsumedItemView { status: 200, replayed, consumed: Some(consumed), problem: None },
        Err(problem) => {
            let body = problem.body("/api/usage", "");
            ConsumedItemView { status: problem.status.as_u16(), replayed, consumed: None, problem: Some(body) }
        }
    }
}

fn granted(consumed: Consumed, idempotency_key: String) -> Result<ConsumedView, Problem> {
    if !consumed.decision.allowed {
        return Err(refusal(consumed.decision));
    }
    Ok(ConsumedView { decision: consumed.decision.into(), idempotency_key })
}

fn command(
    caller: &Caller,
    input: &ConsumeIn,
    header: Option<IdempotencyKey>,
    usage: &UsageService,
) -> Result<ConsumeCommand, Problem> {
    let subject = caller.acting_for(input.user_id.map(UserId), Permission::UsageWrite)?;
    let feature_id: FeatureId = feature_id(&input.feature_id)?;
    let key = one_key(header, input.idempotency_key.as_deref())?.unwrap_or_else(|| usage.new_key());
    let api_key_id = match &caller.credential {
        Credential::Token => None,
        Credential::Key { id, .. } => Some(*id),
    };
    Ok(ConsumeCommand { user_id: subject.user_id(), feature_id, amount: input.amount.unwrap_or(1), key, api_key_id })
}
