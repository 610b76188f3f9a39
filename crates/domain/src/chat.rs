//! Chat: the conversations that a user stores, and their messages.
//!
//! A conversation that has ended accepts no more messages; the code that makes a call checks
//! [`ChatSession::may_go_on`]. The cost of a conversation remains in the log of calls when the conversation is deleted.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::ai::ModelId;
use crate::api_keys::ApiKeyId;
use crate::prices::NanoUsd;
use crate::users::UserId;

/// How many conversations one user may store, ended ones included.
pub const SESSIONS_PER_USER: i64 = 10_000;

/// The longest system prompt of a conversation, in bytes.
pub const SYSTEM_BYTES_MAX: usize = 32 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChatSessionId(pub Uuid);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChatMessageId(pub Uuid);

/// The author of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageRole {
    User,
    Assistant,
    System,
}

impl MessageRole {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::System => "system",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a message is of the user, the assistant or the system")]
pub struct UnknownMessageRole;

impl FromStr for MessageRole {
    type Err = UnknownMessageRole;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::User, Self::Assistant, Self::System]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(UnknownMessageRole)
    }
}

/// A conversation with its sums. Each call adds to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatSession {
    pub id: ChatSessionId,
    pub user_id: UserId,
    /// The key that opened it, if a key did and still exists.
    pub api_key_id: Option<ApiKeyId>,
    pub title: Option<String>,
    /// The model of calls that name none.
    pub model: Option<ModelId>,
    /// The system prompt of every call.
    pub system: Option<String>,
    pub tokens: i64,
    pub cost: NanoUsd,
    pub created_at: DateTime<Utc>,
    /// When a message was added or the conversation was changed last.
    pub updated_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
}

impl ChatSession {
    /// Whether a call may add messages.
    pub const fn may_go_on(&self) -> Result<(), ChatRefused> {
        if self.ended_at.is_some() { Err(ChatRefused::Ended) } else { Ok(()) }
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    pub id: ChatMessageId,
    pub session_id: ChatSessionId,
    pub role: MessageRole,
    pub content: String,
    pub tokens: i64,
    pub cost: NanoUsd,
    /// The model that wrote it, or to which it was sent.
    pub model: Option<String>,
    /// The log entry of the call.
    pub usage_log_id: Option<Uuid>,
    /// The order of messages with the same time.
    pub seq: i64,
    pub created_at: DateTime<Utc>,
}

/// The properties that a user requests for a new conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChatSessionDraft {
    pub title: Option<String>,
    pub model: Option<ModelId>,
    pub system: Option<String>,
}

/// The change of each field: `None` keeps it, `Some(None)` removes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChatSessionChanges {
    pub title: Option<Option<String>>,
    pub system: Option<Option<String>>,
}

impl ChatSessionChanges {
    pub const fn is_empty(&self) -> bool {
        self.title.is_none() && self.system.is_none()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ChatRefused {
    #[error("a user keeps at most {SESSIONS_PER_USER} conversations; delete one first")]
    TooMany,
    #[error("the conversation has ended and takes no more messages")]
    Ended,
}

/// Whether one more conversation may be opened beside the `existing` ones.
pub const fn may_open(existing: i64) -> Result<(), ChatRefused> {
    if existing >= SESSIONS_PER_USER { Err(ChatRefused::TooMany) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_goes_on_until_it_has_ended() {
        let open = ChatSession {
            id: ChatSessionId(Uuid::nil()),
            user_id: UserId(Uuid::nil()),
            api_key_id: None,
            title: None,
            model: None,
            system: None,
            tokens: 0,
            cost: NanoUsd(0),
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
            ended_at: None,
        };
        assert_eq!(open.may_go_on(), Ok(()));
        let ended = ChatSession { ended_at: Some(DateTime::UNIX_EPOCH), ..open };
        assert_eq!(ended.may_go_on(), Err(ChatRefused::Ended));
    }

    #[test]
    fn a_user_keeps_a_bounded_number_of_conversations() {
        assert_eq!(may_open(SESSIONS_PER_USER - 1), Ok(()));
        assert_eq!(may_open(SESSIONS_PER_USER), Err(ChatRefused::TooMany));
    }

    #[test]
    fn every_role_reads_back_from_its_name() {
        for role in [MessageRole::User, MessageRole::Assistant, MessageRole::System] {
            assert_eq!(role.as_str().parse(), Ok(role));
            assert_eq!(serde_json::to_value(role).ok(), Some(role.as_str().into()));
        }
        assert_eq!("tool".parse::<MessageRole>(), Err(UnknownMessageRole));
    }
}
