//! Endpoints: the routes of the three dialects. Each takes an API key or an access token with `ai:chat`.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use domain::ai::Dialect;
use domain::prices::ModelPurpose;
use ports::ai::{AiOperation, StreamFraming};
use serde_json::{Value, json};
use services::ai::AiService;

use super::body::DialectBody;
use super::calls::{GatewayRequest, sized};
use super::delivery::deliver;
use super::request_summary::{OutputForm, RequestSummary, filled_list, model};
use super::{anthropic, gemini, openai};
use crate::http::caller::{Chat, PermittedCaller};
use crate::http::problem::Problem;
use crate::http::replays::once;
use crate::http::spawn::detached;

type Answered = Result<HttpResponse, Problem>;

/// `OpenAI`'s chat completions, whole or streamed. The body is in `OpenAI`'s format; unknown fields are passed on.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "dialects", operation_id = "create_chat_completion",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat answer what the first answered")),
    request_body(content = Object, description = "A chat completion as `OpenAI` takes it"), responses(
    (status = 200, description = "A chat completion, or its chunks as events", body = Object),
), security(("token" = []), ("key" = [])))]
pub async fn create_chat_completion(
    asking: PermittedCaller<Chat>,
    ai: Data<AiService>,
    request: HttpRequest,
    body: DialectBody,
) -> Answered {
    let gateway_request = GatewayRequest::of(&request, &asking.caller, Dialect::OpenAiChat, AiOperation::Chat);
    answered(gateway_request, ai, body, openai::request::read).await
}

/// `OpenAI`'s embeddings.
#[utoipa::path(post, path = "/v1/embeddings", tag = "dialects", operation_id = "create_embeddings",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat answer what the first answered")),
    request_body(content = Object, description = "What to embed, as `OpenAI` takes it"), responses(
    (status = 200, description = "The embeddings", body = Object),
), security(("token" = []), ("key" = [])))]
pub async fn create_embeddings(
    asking: PermittedCaller<Chat>,
    ai: Data<AiService>,
    request: HttpRequest,
    body: DialectBody,
) -> Answered {
    let gateway_request = GatewayRequest::of(&request, &asking.caller, Dialect::OpenAiChat, AiOperation::Embeddings);
    answered(gateway_request, ai, body, openai::request::read_embeddings).await
}

/// Anthropic's messages, whole or streamed. The body is in Anthropic's format; unknown fields are passed on.
#[utoipa::path(post, path = "/v1/messages", tag = "dialects", operation_id = "create_message",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat answer what the first answered")),
    request_body(content = Object, description = "A message as Anthropic takes it"), responses(
    (status = 200, description = "A message, or its events", body = Object),
), security(("token" = []), ("key" = [])))]
pub async fn create_message(
    asking: PermittedCaller<Chat>,
    ai: Data<AiService>,
    request: HttpRequest,
    body: DialectBody,
) -> Answered {
    let gateway_request = GatewayRequest::of(&request, &asking.caller, Dialect::Anthropic, AiOperation::Chat);
    answered(gateway_request, ai, body, anthropic::request::read).await
}

/// Estimates how many input tokens a message has, by our own count. Free of charge.
#[utoipa::path(post, path = "/v1/messages/count_tokens", tag = "dialects", operation_id = "count_message_tokens",
    request_body(content = Object, description = "A message as Anthropic takes it"), responses(
    (status = 200, description = "`{input_tokens}`", body = Object),
), security(("token" = []), ("key" = [])))]
pub async fn count_message_tokens(_asking: PermittedCaller<Chat>, ai: Data<AiService>, body: DialectBody) -> Answered {
    let read = |body: &Value| {
        filled_list(body, "messages")?;
        model(body)
    };
    let tokens = counted(ai, Dialect::Anthropic, body, read).await?;
    Ok(HttpResponse::Ok().json(json!({ "input_tokens": tokens })))
}

/// Gemini's verbs: `generateContent`, `streamGenerateContent` (an array, or events with `?alt=sse`), `countTokens` (our
/// own count, free of charge), `embedContent`, `batchEmbedContents`.
#[utoipa::path(post, path = "/v1beta/models/{model}:{verb}", tag = "dialects", operation_id = "call_gemini_model",
    params(("model" = String, Path, description = "The model's name, which may hold slashes"),
        ("verb" = String, Path, description = "What is asked of it"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat answer what the first answered")),
    request_body(content = Object, description = "A request as Gemini takes it"), responses(
    (status = 200, description = "The answer of the verb", body = Object),
    (status = 404, description = "No such model, or no such verb", body = Object),
), security(("token" = []), ("key" = [])))]
pub async fn call_gemini_model(
    asking: PermittedCaller<Chat>,
    ai: Data<AiService>,
    request: HttpRequest,
    path: Path<(String, String)>,
    body: DialectBody,
) -> Answered {
    let (model, verb) = path.into_inner();
    let gateway_request = |operation| GatewayRequest::of(&request, &asking.caller, Dialect::Gemini, operation);
    let converse = |form| {
        let model = model.clone();
        move |body: &Value| gemini::request::read(model, form, body)
    };
    match verb.as_str() {
        "generateContent" => answered(gateway_request(AiOperation::Chat), ai, body, converse(OutputForm::Whole)).await,
        "streamGenerateContent" => {
            let form = OutputForm::Stream(framing(request.query_string()));
            answered(gateway_request(AiOperation::Chat), ai, body, converse(form)).await
        }
        "embedContent" => {
            let read = move |body: &Value| gemini::request::read_embedding(model, body);
            answered(gateway_request(AiOperation::Embeddings), ai, body, read).await
        }
        "batchEmbedContents" => {
            let read = move |body: &Value| gemini::request::read_embeddings(model, body);
            answered(gateway_request(AiOperation::Embeddings), ai, body, read).await
        }
        "countTokens" => {
            let read = move |body: &Value| {
                // The SDK sends the contents alone, or the whole request that it would make.
                let asked = body.get("generateContentRequest").unwrap_or(body);
                filled_list(asked, "contents")?;
                Ok(model)
            };
            let tokens = counted(ai, Dialect::Gemini, body, read).await?;
            Ok(HttpResponse::Ok().json(json!({ "totalTokens": tokens })))
        }
        other => Err(Problem::not_found(format!("There is no verb `{other}` of a model here."))),
    }
}

/// The same verbs under Gemini's stable version, `/v1`.
#[utoipa::path(post, path = "/v1/models/{model}:{verb}", tag = "dialects", operation_id = "call_gemini_model_stable",
    params(("model" = String, Path, description = "The model's name, which may hold slashes"),
        ("verb" = String, Path, description = "What is asked of it"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat answer what the first answered")),
    request_body(content = Object, description = "A request as Gemini takes it"), responses(
    (status = 200, description = "The answer of the verb", body = Object),
    (status = 404, description = "No such model, or no such verb", body = Object),
), security(("token" = []), ("key" = [])))]
pub async fn call_gemini_model_stable(
    asking: PermittedCaller<Chat>,
    ai: Data<AiService>,
    request: HttpRequest,
    path: Path<(String, String)>,
    body: DialectBody,
) -> Answered {
    call_gemini_model(asking, ai, request, path, body).await
}

async fn answered<R>(gateway_request: GatewayRequest, ai: Data<AiService>, body: DialectBody, read: R) -> Answered
where
    R: FnOnce(&Value) -> Result<RequestSummary, Problem> + Send + 'static,
{
    let ai = ai.into_inner();
    let signs = gateway_request.signs.clone();
    let bytes = body.bytes.clone();
    let prepare = {
        let ai = std::sync::Arc::clone(&ai);
        async move {
            let _turn = body.turn().await?;
            gateway_request.prepare(ai, body.bytes, read).await
        }
    };
    once(signs, &bytes, |keeping| deliver(ai, keeping.of(prepare))).await
}

/// About how many input tokens a request has, for a model that exists.
async fn counted<R>(ai: Data<AiService>, dialect: Dialect, body: DialectBody, read: R) -> Result<u64, Problem>
where
    R: FnOnce(&Value) -> Result<String, Problem> + Send + 'static,
{
    let ai = ai.into_inner();
    detached(async move {
        let turn = body.turn().await?;
        let (_, model, input) = sized(&ai, dialect, body.bytes, read).await?;
        drop(turn);
        ai.target(&model, None, ModelPurpose::Chat).await?;
        Ok::<_, Problem>(input.likely())
    })
    .await
}

/// Events if `alt=sse` asks for them, otherwise one array.
fn framing(query: &str) -> StreamFraming {
    let is_events = form_urlencoded::parse(query.as_bytes()).any(|(name, value)| name == "alt" && value == "sse");
    if is_events { StreamFraming::ServerSentEvents } else { StreamFraming::JsonArray }
}
