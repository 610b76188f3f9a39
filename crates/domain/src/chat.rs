//! Chat: conversations that a user keeps, and what was said in them.
//!
//! A conversation that has ended takes no more messages; whoever makes a call asks [`ChatSession::may_go_on`]. What a
//! conversation cost stays in the record of the calls when the conversation itself is deleted.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::ai::ModelId;
use crate::api_keys::ApiKeyId;
use crate::prices::NanoUsd;
use crate::users::UserId;

/// How many conversations one user may keep, ended ones too.
pub const SESSIONS_PER_USER: i64 = 10_000;

/// How long the system prompt of a conversation may be, in bytes.
pub const SYSTEM_BYTES_MAX: usize = 32 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChatSessionId(pub Uuid);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChatMessageId(pub Uuid);

/// Who says a message.
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
    /// The key that opened it, where one did and is still there.
    pub api_key_id: Option<ApiKeyId>,
    pub title: Option<String>,
    /// The model of the calls that name none.
    pub model: Option<ModelId>,
    /// What is put before every call.
    pub system: Option<String>,
    pub tokens: i64,
    pub cost: NanoUsd,
    pub created_at: DateTime<Utc>,
    /// When it last went on or was changed.
    pub updated_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
}

impl ChatSession {
    /// Whether a call may add messages.
    pub const fn may_go_on(&self) -> Result<(), ChatRefused> {
        if self.ended_at.is_some() { Err(ChatRefused::Ended) } else { Ok(()) }
    }
}

/// One message, as it was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    pub id: ChatMessageId,
    pub session_id: ChatSessionId,
    pub role: MessageRole,
    pub content: String,
    pub tokens: i64,
    pub cost: NanoUsd,
    /// The model that said it, or that it was said to.
    pub model: Option<String>,
    /// The record of the call.
    pub usage_log_id: Option<Uuid>,
    /// Which came first of two that were said at the same time.
    pub seq: i64,
    pub created_at: DateTime<Utc>,
}

/// What a user wants of a new conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChatSessionDraft {
    pub title: Option<String>,
    pub model: Option<ModelId>,
    pub system: Option<String>,
}

/// What becomes of a conversation: `None` leaves it, `Some(None)` takes it away.
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
