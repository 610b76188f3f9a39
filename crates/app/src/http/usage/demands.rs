//! Consuming: one item at a time or up to a thousand. A 200 means that it is counted and durable.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Json};
use domain::features::FeatureId;
use domain::idempotency::IdempotencyKey;
use domain::identity::{Caller, Credential, Permission};
use domain::users::UserId;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use services::identity::callers::CallerService;
use services::usage::UsageService;
use services::usage::commands::{ConsumeCommand, ConsumeOutcome, UsageRequest};
use utoipa::ToSchema;
use uuid::Uuid;
use validator::Validate;

use super::super::caller::{PermittedCaller, WriteUsage, not_served};
use super::super::entitlements::DecisionView;
use super::super::idempotent::{RequestKey, now_or_again, one_key};
use super::super::plans::feature_id;
use super::super::problem::{Problem, ProblemView};
use super::super::validation::ValidBody;
use super::refusals::refusal;

/// How many consumptions one request may contain.
pub const BATCH_MAX: usize = 1_000;

/// The largest body of a batch, in bytes: a thousand items with all fields that they may have.
pub const BATCH_BODY_LIMIT: usize = 1024 * 1024;

#[derive(Clone, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsumeIn {
    /// The user; the caller by default. Another user needs `usage:write` with `on_behalf`, or an administrator.
    #[serde(default)]
    pub user_id: Option<Uuid>,
    #[validate(length(min = 1, max = 50))]
    #[schema(example = "ai_requests", min_length = 1, max_length = 50)]
    pub feature_id: String,
    /// How much; 1 by default.
    #[serde(default, deserialize_with = "crate::http::validation::whole")]
    #[validate(range(min = 1))]
    #[schema(minimum = 1)]
    pub amount: Option<i64>,
    /// A repeat with this key is counted once. The header `Idempotency-Key` does the same; without either, one is made.
    #[serde(default)]
    #[validate(length(min = 1, max = 255))]
    #[schema(min_length = 1, max_length = 255, pattern = "^[!-~]([ -~]*[!-~])?$")]
    pub idempotency_key: Option<String>,
}

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsumeBatchIn {
    #[validate(nested)]
    #[schema(min_items = 1, max_items = 1_000)]
    items: Vec<ConsumeIn>,
}

/// A granted consumption, with the figures after it.
#[derive(Serialize, ToSchema)]
pub struct ConsumedView {
    #[serde(flatten)]
    pub decision: DecisionView,
    /// The idempotency key under which it is stored: the one that was sent, or a generated one.
    pub idempotency_key: String,
}

#[derive(Serialize, ToSchema)]
pub struct ConsumedBatchView {
    /// A result for each item, in the same order.
    pub data: Vec<ConsumedItemView>,
}

#[derive(Serialize, ToSchema)]
pub struct ConsumedItemView {
    /// The status that a request of its own would have had.
    pub status: u16,
    /// Whether this is the stored outcome of an earlier request with the same key.
    pub replayed: bool,
    /// The consumption, if it was granted.
    #[schema(required = true)]
    pub consumed: Option<ConsumedView>,
    /// The problem, if it was refused, with the figures of the decision.
    #[schema(required = true, value_type = Option<Object>)]
    pub problem: Option<Value>,
}

/// Consumes an amount of a feature. 200 means counted and durable; a refusal counts nothing and uses up no key.
#[utoipa::path(post, path = "/api/usage", tag = "usage", operation_id = "consume", request_body = ConsumeIn,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat count once; the body's key says the same")),
    responses(
    (status = 200, description = "Counted", body = ConsumedView),
    (status = 402, description = "The limit is reached, and the tokens do not pay for more", body = ProblemView),
    (status = 404, description = "No such feature, or no such user", body = ProblemView),
    (status = 429, description = "The limit is reached, with the numbers and the reset time", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn consume(
    asking: PermittedCaller<WriteUsage>,
    key: RequestKey,
    usage: Data<UsageService>,
    callers: Data<CallerService>,
    input: ValidBody<ConsumeIn>,
) -> Result<HttpResponse, Problem> {
    let request = usage_request(&asking.caller, &input.body, key.into_key(), &usage)?;
    admit(&callers, &asking.caller, request.user_id).await?;
    let key = request.idempotency_key.as_str().to_owned();
    let consumed = usage.execute(ConsumeCommand(request)).await?;
    let replayed = consumed.replayed;
    let view = granted(consumed, key)?;
    Ok(now_or_again(StatusCode::OK, replayed).json(view))
}

/// Consumes up to a thousand items at once, each on its own: the refusal of one does not affect the others.
#[utoipa::path(post, path = "/api/usage/batch", tag = "usage", operation_id = "consume_batch", request_body = ConsumeBatchIn, responses(
    (status = 200, description = "A result for each", body = ConsumedBatchView),
), security(("token" = []), ("key" = [])))]
pub async fn consume_batch(
    asking: PermittedCaller<WriteUsage>,
    usage: Data<UsageService>,
    callers: Data<CallerService>,
    input: ValidBody<ConsumeBatchIn>,
) -> Result<Json<ConsumedBatchView>, Problem> {
    if !(1..=BATCH_MAX).contains(&input.body.items.len()) {
        return Err(Problem::invalid_field("items", format!("has 1 to {BATCH_MAX} items")));
    }
    let mut refused = Vec::new();
    let mut commands = Vec::new();
    let caller = &asking.caller;
    let requests: Vec<_> = input.body.items.iter().map(|item| usage_request(caller, item, None, &usage)).collect();
    // Together, so that users who are not cached are read at once.
    let admitted = join_all(requests.into_iter().map(async |request| {
        let request = request?;
        admit(&callers, caller, request.user_id).await?;
        Ok(request)
    }));
    for request in admitted.await {
        match request {
            Ok(request) => {
                refused.push(None);
                commands.push(ConsumeCommand(request));
            }
            Err(problem) => refused.push(Some(problem)),
        }
    }
    let keys: Vec<_> = commands.iter().map(|command| command.0.idempotency_key.as_str().to_owned()).collect();
    let answers = usage.consume_all(commands).await;
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

fn granted(consumed: ConsumeOutcome, idempotency_key: String) -> Result<ConsumedView, Problem> {
    if !consumed.decision.allowed {
        return Err(refusal(consumed.decision));
    }
    Ok(ConsumedView { decision: consumed.decision.into(), idempotency_key })
}

/// Checks that the user that the caller acts for may be served. The caller itself is not checked: `identify` did that.
pub async fn admit(callers: &CallerService, caller: &Caller, subject: UserId) -> Result<(), Problem> {
    if subject == caller.user_id { Ok(()) } else { callers.admit_subject(subject).await.map_err(not_served) }
}

/// What is requested, and for whom.
pub fn usage_request(
    caller: &Caller,
    input: &ConsumeIn,
    header: Option<IdempotencyKey>,
    usage: &UsageService,
) -> Result<UsageRequest, Problem> {
    let subject = caller.acting_for(input.user_id.map(UserId), Permission::UsageWrite)?;
    let feature_id: FeatureId = feature_id(&input.feature_id)?;
    let idempotency_key = one_key(header, input.idempotency_key.as_deref())?.unwrap_or_else(|| usage.new_key());
    let api_key_id = match &caller.credential {
        Credential::Token => None,
        Credential::Key { id, .. } => Some(*id),
    };
    let amount = input.amount.unwrap_or(1);
    Ok(UsageRequest { user_id: subject.user_id(), feature_id, amount, idempotency_key, api_key_id })
}
