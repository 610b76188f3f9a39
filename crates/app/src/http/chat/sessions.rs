//! Conversations: opened, listed, read, renamed, ended and deleted. Another user's is a 404, like an unknown one.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Json, Path};
use chrono::{DateTime, Utc};
use domain::ai::ModelId;
use domain::chat::{ChatRefused, ChatSession, ChatSessionChanges, ChatSessionDraft, ChatSessionId, SYSTEM_BYTES_MAX};
use ports::chat::{CountedSession, SessionState};
use ports::store::Page;
use serde::{Deserialize, Serialize};
use services::chat::{ChatError, ChatService};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use validator::{Validate, ValidationError};

use crate::http::caller::{Chat, PermittedCaller};
use crate::http::idempotent::{RequestKey, answer};
use crate::http::pages::{PageQuery, PageView};
use crate::http::problem::{Problem, ProblemView};
use crate::http::spawn::detached;
use crate::http::validation::{ValidBody, ValidQuery, one_line, present};

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewChatSessionIn {
    #[serde(default)]
    #[validate(length(min = 1, max = 200), custom(function = "one_line"))]
    #[schema(
        pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$",
        min_length = 1,
        max_length = 200
    )]
    title: Option<String>,
    /// The model of the calls that name none.
    #[serde(default)]
    #[validate(length(min = 1, max = 200))]
    #[schema(pattern = "^[!-~]{1,200}$", min_length = 1, max_length = 200, example = "claude-sonnet-5")]
    model: Option<String>,
    /// The system prompt of every call; at most 32 KiB.
    #[serde(default)]
    #[validate(length(min = 1), custom(function = "short_enough"))]
    #[schema(min_length = 1, max_length = 32_768)]
    system: Option<String>,
}

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChatSessionChangesIn {
    /// Null removes it.
    #[serde(default, deserialize_with = "present")]
    #[validate(length(min = 1, max = 200), custom(function = "one_line"))]
    #[schema(pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$", value_type = Option<String>, min_length = 1, max_length = 200)]
    title: Option<Option<String>>,
    /// At most 32 KiB; null removes it.
    #[serde(default, deserialize_with = "present")]
    #[validate(length(min = 1), custom(function = "short_enough"))]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 32_768)]
    system: Option<Option<String>>,
}

fn short_enough(text: &str) -> Result<(), ValidationError> {
    let rule = || ValidationError::new("short_enough").with_message("has at most 32768 bytes of UTF-8".into());
    if text.len() <= SYSTEM_BYTES_MAX { Ok(()) } else { Err(rule()) }
}

#[derive(Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ChatSessionQuery {
    /// Only open ones, or only ended ones.
    #[param(inline)]
    state: Option<StateName>,
    /// How many rows to show; 20 by default.
    #[validate(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u64>,
    /// `next_cursor` of the previous page.
    #[validate(length(max = 100))]
    #[param(pattern = r"^[0-9]{1,16}_[0-9a-f]{32}$")]
    cursor: Option<String>,
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StateName {
    Open,
    Ended,
}

#[derive(Serialize, ToSchema)]
pub struct ChatSessionView {
    pub id: Uuid,
    #[schema(required = true)]
    pub title: Option<String>,
    #[schema(required = true)]
    pub model: Option<String>,
    #[schema(required = true)]
    pub system: Option<String>,
    /// The tokens of all its calls.
    pub tokens: i64,
    /// US dollars of all its calls, exact, as text.
    #[schema(example = "0.00125")]
    pub cost_usd: String,
    pub created_at: DateTime<Utc>,
    /// When it was last continued or changed.
    pub updated_at: DateTime<Utc>,
    /// Since when it accepts no more messages.
    #[schema(required = true)]
    pub ended_at: Option<DateTime<Utc>>,
}

/// A conversation, and the number of its messages.
#[derive(Serialize, ToSchema)]
pub struct CountedChatSessionView {
    pub messages: i64,
    #[serde(flatten)]
    pub described: ChatSessionView,
}

impl From<&ChatSession> for ChatSessionView {
    fn from(session: &ChatSession) -> Self {
        Self {
            id: session.id.0,
            title: session.title.clone(),
            model: session.model.as_ref().map(ToString::to_string),
            system: session.system.clone(),
            tokens: session.tokens,
            cost_usd: session.cost.to_string(),
            created_at: session.created_at,
            updated_at: session.updated_at,
            ended_at: session.ended_at,
        }
    }
}

impl From<&CountedSession> for CountedChatSessionView {
    fn from(counted: &CountedSession) -> Self {
        Self { messages: counted.messages, described: ChatSessionView::from(&counted.session) }
    }
}

impl From<ChatError> for Problem {
    fn from(error: ChatError) -> Self {
        match error {
            ChatError::NotFound => Self::not_found("There is no such conversation."),
            ChatError::Refused(why @ ChatRefused::TooMany) => Self::unprocessable("too_many_sessions", &why),
            ChatError::Refused(why @ ChatRefused::Ended) => Self::conflict("session_ended", &why),
            ChatError::Key(conflict) => conflict.into(),
            ChatError::Store(error) => error.into(),
        }
    }
}

/// Opens a conversation.
#[utoipa::path(post, path = "/api/ai/sessions", tag = "ai", operation_id = "open_chat_session", request_body = NewChatSessionIn,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat answer what the first answered")),
    responses((status = 201, description = "The conversation", body = CountedChatSessionView)),
    security(("token" = []), ("key" = [])))]
pub async fn open_session(
    me: PermittedCaller<Chat>,
    key: RequestKey,
    chat: Data<ChatService>,
    input: ValidBody<NewChatSessionIn>,
) -> Result<HttpResponse, Problem> {
    let view = |session: &ChatSession| CountedChatSessionView { messages: 0, described: session.into() };
    let once = key.once(&me.caller, &input.bytes, StatusCode::CREATED, view);
    let NewChatSessionIn { title, model, system } = input.body;
    let model = model.as_deref().map(ModelId::parse).transpose();
    let model = model.map_err(|_| Problem::invalid_field("model", "has characters that are not visible ASCII"))?;
    let draft = ChatSessionDraft { title, model, system };
    let chat = chat.into_inner();
    Ok(answer(detached(async move { chat.open(&me.caller, &draft, once).await }).await?))
}

/// Lists the caller's own conversations; the one continued last comes first.
#[utoipa::path(get, path = "/api/ai/sessions", tag = "ai", operation_id = "list_chat_sessions", params(ChatSessionQuery),
    responses((status = 200, description = "A page of conversations", body = PageView<ChatSessionView>)),
    security(("token" = []), ("key" = [])))]
pub async fn list_sessions(
    me: PermittedCaller<Chat>,
    query: ValidQuery<ChatSessionQuery>,
    chat: Data<ChatService>,
) -> Result<Json<PageView<ChatSessionView>>, Problem> {
    let ChatSessionQuery { state, limit, cursor } = query.0;
    let state = state.map(|state| match state {
        StateName::Open => SessionState::Open,
        StateName::Ended => SessionState::Ended,
    });
    let paging = PageQuery { limit, cursor };
    let after = paging.after()?.map(|(at, id)| (at, ChatSessionId(id)));
    let (owner, page) = (me.caller.user_id, Page { after, limit: paging.rows() });
    let chat = chat.into_inner();
    let found = detached(async move { chat.list(owner, state, &page).await }).await?;
    Ok(Json(paging.page(
        &found,
        |session| (session.updated_at, session.id.0),
        |session| ChatSessionView::from(session),
    )))
}

/// Reads one of the caller's own conversations, with its tokens and cost.
#[utoipa::path(get, path = "/api/ai/sessions/{session_id}", tag = "ai", operation_id = "read_chat_session",
    params(("session_id" = Uuid, Path, description = "Its id")), responses(
    (status = 200, description = "The conversation", body = CountedChatSessionView),
    (status = 404, description = "No such conversation", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn read_session(
    me: PermittedCaller<Chat>,
    id: Path<String>,
    chat: Data<ChatService>,
) -> Result<Json<CountedChatSessionView>, Problem> {
    let (owner, id, chat) = (me.caller.user_id, session_id(&id)?, chat.into_inner());
    let found = detached(async move { chat.find(owner, id).await }).await?;
    Ok(Json(CountedChatSessionView::from(&found)))
}

/// Changes the title or the system prompt of one of the caller's own conversations.
#[utoipa::path(patch, path = "/api/ai/sessions/{session_id}", tag = "ai", operation_id = "change_chat_session",
    request_body = ChatSessionChangesIn, params(("session_id" = Uuid, Path, description = "Its id")), responses(
    (status = 200, description = "The conversation", body = CountedChatSessionView),
    (status = 404, description = "No such conversation", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn change_session(
    me: PermittedCaller<Chat>,
    id: Path<String>,
    chat: Data<ChatService>,
    input: ValidBody<ChatSessionChangesIn>,
) -> Result<Json<CountedChatSessionView>, Problem> {
    let (owner, id, chat) = (me.caller.user_id, session_id(&id)?, chat.into_inner());
    let ChatSessionChangesIn { title, system } = input.body;
    let changes = ChatSessionChanges { title, system };
    let session = detached(async move { chat.change(owner, id, &changes).await }).await?;
    Ok(Json(CountedChatSessionView::from(&session)))
}

/// Ends a conversation: it accepts no more messages. Ending it again changes nothing.
#[utoipa::path(post, path = "/api/ai/sessions/{session_id}/end", tag = "ai", operation_id = "end_chat_session",
    params(("session_id" = Uuid, Path, description = "Its id")), responses(
    (status = 200, description = "The conversation", body = CountedChatSessionView),
    (status = 404, description = "No such conversation", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn end_session(
    me: PermittedCaller<Chat>,
    id: Path<String>,
    chat: Data<ChatService>,
) -> Result<Json<CountedChatSessionView>, Problem> {
    let (owner, id, chat) = (me.caller.user_id, session_id(&id)?, chat.into_inner());
    let ended = detached(async move { chat.end(owner, id).await }).await?;
    Ok(Json(CountedChatSessionView::from(&ended)))
}

/// Deletes a conversation with its messages. The cost of its calls stays in the usage log.
#[utoipa::path(delete, path = "/api/ai/sessions/{session_id}", tag = "ai", operation_id = "delete_chat_session",
    params(("session_id" = Uuid, Path, description = "Its id")), responses(
    (status = 204, description = "It is gone"),
    (status = 404, description = "No such conversation", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn delete_session(
    me: PermittedCaller<Chat>,
    id: Path<String>,
    chat: Data<ChatService>,
) -> Result<HttpResponse, Problem> {
    let (owner, id, chat) = (me.caller.user_id, session_id(&id)?, chat.into_inner());
    detached(async move { chat.delete(owner, id).await }).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// A path without an id names no conversation.
pub fn session_id(text: &str) -> Result<ChatSessionId, Problem> {
    Uuid::try_parse(text).map(ChatSessionId).map_err(|_| ChatError::NotFound.into())
}
