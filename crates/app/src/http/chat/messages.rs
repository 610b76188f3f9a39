//! Messages: those of one conversation, and the latest of all of them.

use actix_web::web::{Data, Json, Path};
use chrono::{DateTime, Utc};
use domain::chat::{ChatMessage, MessageRole};
use ports::chat::RecalledMessage;
use ports::store::Page;
use serde::{Deserialize, Serialize};
use services::chat::ChatService;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use validator::Validate;

use super::sessions::session_id;
use crate::http::caller::{Chat, PermittedCaller};
use crate::http::pages::{ListView, PagePosition, PageQuery, PageView};
use crate::http::problem::{Problem, ProblemView};
use crate::http::spawn::detached;
use crate::http::validation::ValidQuery;

/// How many messages the history shows by default.
const HISTORY_LIMIT: u64 = 5;

#[derive(Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct HistoryQuery {
    /// How many messages to show; 5 by default.
    #[validate(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u64>,
}

/// Who wrote a message.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum MessageRoleName {
    User,
    Assistant,
    System,
}

#[derive(Serialize, ToSchema)]
pub struct ChatMessageView {
    pub id: Uuid,
    #[schema(value_type = MessageRoleName)]
    pub role: MessageRole,
    pub content: String,
    pub tokens: i64,
    /// US dollars, exact, as text.
    #[schema(example = "0.00125")]
    pub cost_usd: String,
    /// The model of the call.
    #[schema(required = true)]
    pub model: Option<String>,
    pub created_at: DateTime<Utc>,
}

/// A message, and its conversation.
#[derive(Serialize, ToSchema)]
pub struct RecalledMessageView {
    pub session_id: Uuid,
    /// The title of the conversation.
    #[schema(required = true)]
    pub title: Option<String>,
    #[serde(flatten)]
    pub described: ChatMessageView,
}

impl From<&ChatMessage> for ChatMessageView {
    fn from(message: &ChatMessage) -> Self {
        Self {
            id: message.id.0,
            role: message.role,
            content: message.content.clone(),
            tokens: message.tokens,
            cost_usd: message.cost.to_string(),
            model: message.model.clone(),
            created_at: message.created_at,
        }
    }
}

impl From<&RecalledMessage> for RecalledMessageView {
    fn from(recalled: &RecalledMessage) -> Self {
        let message = &recalled.message;
        Self { session_id: message.session_id.0, title: recalled.title.clone(), described: message.into() }
    }
}

/// Lists the messages of one of the caller's own conversations, oldest first.
#[utoipa::path(get, path = "/api/ai/sessions/{session_id}/messages", tag = "ai", operation_id = "list_chat_messages",
    params(("session_id" = Uuid, Path, description = "Which conversation"), PageQuery), responses(
    (status = 200, description = "A page of messages", body = PageView<ChatMessageView>),
    (status = 404, description = "No such conversation", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn list_messages(
    me: PermittedCaller<Chat>,
    id: Path<String>,
    query: ValidQuery<PageQuery>,
    chat: Data<ChatService>,
) -> Result<Json<PageView<ChatMessageView>>, Problem> {
    let (owner, id, paging) = (me.caller.user_id, session_id(&id)?, query.0);
    let page = Page { after: paging.after()?.map(|(at, place)| (at, seq_in(place))), limit: paging.rows() };
    let chat = chat.into_inner();
    let found = detached(async move { chat.list_messages(owner, id, &page).await }).await?;
    Ok(Json(paging.page(&found, place_of, |message| ChatMessageView::from(message))))
}

/// Lists the latest messages of all of the caller's own conversations, newest first.
#[utoipa::path(get, path = "/api/ai/history", tag = "ai", operation_id = "list_chat_history", params(HistoryQuery),
    responses((status = 200, description = "The messages", body = ListView<RecalledMessageView>)),
    security(("token" = []), ("key" = [])))]
pub async fn list_history(
    me: PermittedCaller<Chat>,
    query: ValidQuery<HistoryQuery>,
    chat: Data<ChatService>,
) -> Result<Json<ListView<RecalledMessageView>>, Problem> {
    let (owner, limit) = (me.caller.user_id, query.0.limit.unwrap_or(HISTORY_LIMIT));
    let chat = chat.into_inner();
    let found = detached(async move { chat.list_history(owner, limit).await }).await?;
    Ok(Json(ListView::whole(found.iter().map(RecalledMessageView::from).collect())))
}

/// A cursor has a time and a UUID; the sequence of a message is stored as the number of that UUID.
fn place_of(message: &ChatMessage) -> PagePosition {
    (message.created_at, Uuid::from_u128(u128::from(message.seq.unsigned_abs())))
}

/// A number that is too large, which only a forged cursor has, leads to the end.
fn seq_in(place: Uuid) -> i64 {
    i64::try_from(place.as_u128()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_goes_through_a_cursor() {
        for seq in [0, 1, 77, i64::MAX] {
            assert_eq!(seq_in(Uuid::from_u128(u128::from(seq.unsigned_abs()))), seq);
        }
        assert_eq!(seq_in(Uuid::max()), i64::MAX);
    }
}
