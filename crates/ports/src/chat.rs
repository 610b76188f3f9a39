//! Chat: conversations and their messages. Every method checks the owner, except those of a session's messages.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::api_keys::ApiKeyId;
use domain::chat::{ChatMessage, ChatSession, ChatSessionChanges, ChatSessionDraft, ChatSessionId};
use domain::users::UserId;

use crate::store::{Page, StoreError};

/// Which conversations are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    Open,
    Ended,
}

/// The position of a conversation in the list: when it was last used, and its id.
pub type SessionPosition = (DateTime<Utc>, ChatSessionId);

/// The position of a message in its conversation: its time, and its sequence.
pub type MessagePosition = (DateTime<Utc>, i64);

/// A conversation, and how many messages are in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedSession {
    pub session: ChatSession,
    pub messages: i64,
}

/// A message, and the title of its conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecalledMessage {
    pub title: Option<String>,
    pub message: ChatMessage,
}

#[async_trait]
pub trait ChatRepository: Send {
    async fn insert(
        &mut self,
        owner: UserId,
        api_key_id: Option<ApiKeyId>,
        draft: &ChatSessionDraft,
    ) -> Result<ChatSession, StoreError>;
    /// How many conversations there are, ended ones too; counts no further than `most`.
    async fn count(&mut self, owner: UserId, most: i64) -> Result<i64, StoreError>;
    /// The conversation that a call is to go on with, ended or not; `None` where it is another user's. Takes no lock.
    async fn open_session(&mut self, owner: UserId, id: ChatSessionId) -> Result<Option<ChatSession>, StoreError>;
    async fn find(&mut self, owner: UserId, id: ChatSessionId) -> Result<Option<CountedSession>, StoreError>;
    /// The last used one first.
    async fn list(
        &mut self,
        owner: UserId,
        state: Option<SessionState>,
        page: &Page<SessionPosition>,
    ) -> Result<Vec<ChatSession>, StoreError>;
    /// Returns whether there is such a conversation.
    async fn save_changes(
        &mut self,
        owner: UserId,
        id: ChatSessionId,
        changes: &ChatSessionChanges,
    ) -> Result<bool, StoreError>;
    /// Ends it now, unless it has ended. Returns whether it did.
    async fn end(&mut self, owner: UserId, id: ChatSessionId) -> Result<bool, StoreError>;
    /// Deletes it with its messages. Returns whether there was one.
    async fn delete(&mut self, owner: UserId, id: ChatSessionId) -> Result<bool, StoreError>;
    /// The messages of a conversation, oldest first.
    async fn list_messages(
        &mut self,
        session: ChatSessionId,
        page: &Page<MessagePosition>,
    ) -> Result<Vec<ChatMessage>, StoreError>;
    /// The latest messages of a conversation, the oldest of them first: the context of a call.
    async fn list_latest_messages(
        &mut self,
        session: ChatSessionId,
        limit: u64,
    ) -> Result<Vec<ChatMessage>, StoreError>;
    /// The latest messages of all conversations of a user, the newest first.
    async fn list_history(&mut self, owner: UserId, limit: u64) -> Result<Vec<RecalledMessage>, StoreError>;
}
