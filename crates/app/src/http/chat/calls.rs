//! Model calls by our own route, in our own format: answered whole, or as events; and the quote of such a call.

use std::sync::Arc;

use actix_web::web::{Data, Json};
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
use domain::ai::{ConversationTurn, ProviderId, ProviderProfiles, Speaker, TOKENS_MAX};
use domain::chat::ChatSessionId;
use serde::{Deserialize, Serialize};
use services::ai::chat::ChatRequest;
use services::ai::{AiService, CallQuote};
use utoipa::ToSchema;
use uuid::Uuid;
use validator::Validate;

use super::rendering::{ChatAnswerBody, ChatAnswerView, ChatEvents};
use crate::http::caller::{Chat, PermittedCaller};
use crate::http::dialects::calls::asks_for_strict_hold;
use crate::http::dialects::delivery::{AnswerNotKept, AnswerWriting, deliver};
use crate::http::dialects::rendering::AnswerRenderer;
use crate::http::entitlements::DecisionView;
use crate::http::middleware::RequestActor;
use crate::http::prices::{ProviderName, known_provider};
use crate::http::problem::{Problem, ProblemView};
use crate::http::replays::{RepeatSigns, once};
use crate::http::spawn::detached;
use crate::http::validation::ValidBody;

/// How large the body of a chat may be: conversations are long.
pub const CHAT_BODY_LIMIT: usize = 2 * 1024 * 1024;

#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChatRole {
    User,
    Assistant,
    System,
}

#[derive(Deserialize, Serialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChatMessageIn {
    role: ChatRole,
    #[validate(length(min = 1))]
    #[schema(min_length = 1)]
    content: String,
}

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChatIn {
    /// By default the first provider that has a model of this name.
    #[serde(default)]
    #[schema(value_type = Option<ProviderName>)]
    provider: Option<ProviderId>,
    /// By default the session's model, or the setting `ai.calls.default_model`.
    #[serde(default)]
    #[validate(length(min = 1, max = 200))]
    #[schema(pattern = "^[!-~]{1,200}$", min_length = 1, max_length = 200, example = "gpt-5.4-mini")]
    model: Option<String>,
    /// The user's message. Send this, or `messages`.
    #[serde(default)]
    #[validate(length(min = 1))]
    #[schema(min_length = 1, example = "Hello!")]
    message: Option<String>,
    /// The messages, the last of them by the user; a first one by the system is the system prompt. Or send `message`.
    #[serde(default)]
    #[validate(length(min = 1, max = 1000), nested)]
    #[schema(min_items = 1, max_items = 1000)]
    messages: Option<Vec<ChatMessageIn>>,
    /// The conversation of the call: its last messages are sent along, and message and answer are stored in it.
    #[serde(default)]
    session_id: Option<Uuid>,
    /// Answer as server-sent events: `start`, `delta`s, then `done` or `error`.
    #[serde(default)]
    stream: bool,
    /// The most output tokens, reasoning included.
    #[serde(default, deserialize_with = "crate::http::validation::whole")]
    #[validate(range(min = 1, max = 1_000_000_000))]
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    max_tokens: Option<i64>,
    /// Lower `max_tokens` to what can be paid, instead of refusing the call.
    #[serde(default)]
    lower_max_tokens: bool,
    #[serde(default)]
    #[validate(range(min = 0.0, max = 2.0))]
    #[schema(minimum = 0, maximum = 2)]
    temperature: Option<f64>,
    #[serde(default)]
    #[validate(range(min = 0.0, max = 1.0))]
    #[schema(minimum = 0, maximum = 1)]
    top_p: Option<f64>,
    /// Texts at which the answer stops, at most four.
    #[serde(default)]
    #[validate(length(max = 4))]
    #[schema(max_items = 4)]
    stop: Vec<String>,
}

/// The most that a call can use and cost.
#[derive(Serialize, ToSchema)]
pub struct QuoteView {
    #[schema(value_type = ProviderName)]
    pub provider: ProviderId,
    pub model: String,
    pub input_tokens: u64,
    pub max_output_tokens: u64,
    /// US dollars, exact, as text. Null for a model without a price, if neither the user nor the key has a limit.
    #[schema(example = "0.00125")]
    pub max_cost_usd: Option<String>,
    /// What would be reserved from the token balance: 0 while the plan's limit is not reached.
    pub tokens: i64,
    pub tokens_available: i64,
    /// Whether plan and balance allow the call now. Limits of the API key are not checked.
    pub affordable: bool,
    /// Whether the plan allows one more request.
    pub decision: DecisionView,
}

/// Calls a model. The most that the answer can cost is reserved before, and what it used is charged after.
#[utoipa::path(post, path = "/api/ai/chat", tag = "ai", operation_id = "chat", request_body = ChatIn,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat answer what the first answered")), responses(
    (status = 200, description = "The answer; with `stream`, events: start, delta, done or error", body = ChatAnswerView),
    (status = 402, description = "The limit is reached, and the tokens do not pay for the most that the call can use", body = ProblemView),
    (status = 404, description = "No such model, with near names; no such session", body = ProblemView),
    (status = 409, description = "The session has ended; the answer under this key is under way, lost or too long", body = ProblemView),
    (status = 429, description = "A limit of the plan or of the key is reached; the provider takes no more calls", body = ProblemView),
    (status = 502, description = "The provider failed", body = ProblemView),
    (status = 504, description = "The provider took too long", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn chat(
    asking: PermittedCaller<Chat>,
    ai: Data<AiService>,
    request: HttpRequest,
    input: ValidBody<ChatIn>,
) -> Result<HttpResponse, Problem> {
    let ai = ai.into_inner();
    let mut asked = asked(input.body, ai.providers())?;
    asked.is_strict = asks_for_strict_hold(request.headers());
    let (who, session_id) = ((&asking.caller).into(), asked.session_id.map(|id| id.0));
    let request_id =
        request.extensions().get::<RequestActor>().map(|who| who.request_id().to_owned()).unwrap_or_default();
    let signs = RepeatSigns::of(&request, &asking.caller);
    let service = Arc::clone(&ai);
    let prepare = async move {
        let is_streamed = asked.streamed;
        let call = service.prepare(who, asked).await?;
        let renderer: Box<dyn AnswerRenderer> = if is_streamed {
            Box::new(ChatEvents::new(session_id, request_id))
        } else {
            Box::new(ChatAnswerBody::new(session_id))
        };
        Ok((call, AnswerWriting { renderer, is_streamed, native: Vec::new(), sink: Box::new(AnswerNotKept) }))
    };
    once(signs, &input.bytes, |keeping| deliver(ai, keeping.of(prepare))).await
}

/// What the same request to `/api/ai/chat` would reserve and could cost at most. Nothing is called, reserved or stored.
#[utoipa::path(post, path = "/api/ai/quote", tag = "ai", operation_id = "quote_chat", request_body = ChatIn, responses(
    (status = 200, description = "The most that it can use and cost", body = QuoteView),
    (status = 404, description = "No such model, with near names; no such session", body = ProblemView),
    (status = 409, description = "The session has ended", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn quote_chat(
    asking: PermittedCaller<Chat>,
    ai: Data<AiService>,
    input: ValidBody<ChatIn>,
) -> Result<Json<QuoteView>, Problem> {
    let ai = ai.into_inner();
    let asked = asked(input.body, ai.providers())?;
    let who = (&asking.caller).into();
    let quote = detached(async move {
        match ai.prepare(who, asked).await {
            Ok(call) => ai.quote(&call).await,
            Err(error) => Err(error),
        }
    })
    .await?;
    Ok(Json(quote.into()))
}

impl From<CallQuote> for QuoteView {
    fn from(quote: CallQuote) -> Self {
        let CallQuote { target, input_tokens, max_output_tokens, max_cost, tokens, tokens_available, decision } = quote;
        let lies_on_tokens = tokens > 0;
        Self {
            provider: target.provider.id,
            model: target.model.to_string(),
            input_tokens,
            max_output_tokens,
            max_cost_usd: max_cost.map(|cost| cost.to_string()),
            tokens,
            tokens_available,
            affordable: if lies_on_tokens { tokens <= tokens_available } else { decision.allowed },
            decision: decision.into(),
        }
    }
}

fn asked(input: ChatIn, providers: &ProviderProfiles) -> Result<ChatRequest, Problem> {
    let ChatIn { provider, model, session_id, stream, temperature, top_p, stop, lower_max_tokens, .. } = input;
    let (system, turns) = match (input.message, input.messages) {
        (Some(message), None) => (None, vec![ConversationTurn::text(Speaker::User, message)]),
        (None, Some(messages)) => said(messages)?,
        (Some(_), Some(_)) => return Err(Problem::invalid_field("message", "is sent, or `messages` are, not both")),
        (None, None) => return Err(Problem::invalid_field("message", "is missing; send it, or `messages`")),
    };
    let provider = known_provider(provider, providers)?;
    let max_output_tokens = input.max_tokens.and_then(|most| u64::try_from(most).ok()).map(|most| most.min(TOKENS_MAX));
    Ok(ChatRequest {
        provider,
        model,
        system,
        turns,
        session_id: session_id.map(ChatSessionId),
        streamed: stream,
        max_output_tokens,
        may_be_lowered: lower_max_tokens,
        is_strict: false,
        temperature,
        top_p,
        stop,
    })
}

/// The system prompt, and the messages as turns.
fn said(messages: Vec<ChatMessageIn>) -> Result<(Option<String>, Vec<ConversationTurn>), Problem> {
    let (mut system, mut turns) = (None::<String>, Vec::new());
    for (place, ChatMessageIn { role, content }) in messages.into_iter().enumerate() {
        match role {
            ChatRole::System if turns.is_empty() => {
                system = Some(system.map_or(content.clone(), |before| format!("{before}\n\n{content}")));
            }
            ChatRole::System => {
                let field = format!("messages[{place}].role");
                return Err(Problem::invalid_field(field, "is `system` only before everything else"));
            }
            ChatRole::User => turns.push(ConversationTurn::text(Speaker::User, content)),
            ChatRole::Assistant => turns.push(ConversationTurn::text(Speaker::Assistant, content)),
        }
    }
    match turns.last() {
        Some(ConversationTurn { speaker: Speaker::User, .. }) => Ok((system, turns)),
        _ => Err(Problem::invalid_field("messages", "end with one of the role `user`")),
    }
}
