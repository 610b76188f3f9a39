//! Chat: conversations that their user opens, reads, renames, ends and deletes.
//!
//! Conversations are listed and changed in their user's own scope, so that row-level security backs the statement.
//! Opening one, to which a user has no right, is done by the service; and so is reading messages, whose policy would
//! look up every conversation of the user for each page: there the conversation is looked up by its owner first.
//! Messages are written by the call that they belong to, with what it cost.

use std::sync::Arc;

use domain::api_keys::ApiKeyId;
use domain::chat::{
    ChatMessage, ChatRefused, ChatSession, ChatSessionChanges, ChatSessionDraft, ChatSessionId, SESSIONS_PER_USER,
    may_open,
};
use domain::identity::{Caller, Credential};
use domain::users::UserId;
use ports::chat::{CountedSession, MessagePosition, RecalledMessage, SessionPosition, SessionState};
use ports::store::{Page, Scope, Store, StoreError};
use thiserror::Error;

use crate::conflicts::{may_conflict, retry_conflicts};
use crate::idempotency::{IdempotencyService, IdempotentAnswer, KeyConflict};

#[derive(Debug, Error)]
pub enum ChatError {
    /// Another user's conversation is reported like one that does not exist.
    #[error("there is no such conversation")]
    NotFound,
    #[error(transparent)]
    Refused(#[from] ChatRefused),
    #[error(transparent)]
    Key(#[from] KeyConflict),
    #[error(transparent)]
    Store(#[from] StoreError),
}
may_conflict!(ChatError);

pub struct ChatService {
    pub store: Arc<dyn Store>,
}

impl ChatService {
    /// Opens a conversation. The row of the user is locked, so that two at once cannot pass the bound.
    pub async fn open(
        &self,
        caller: &Caller,
        draft: &ChatSessionDraft,
        once: IdempotencyService<ChatSession>,
    ) -> Result<IdempotentAnswer, ChatError> {
        let owner = caller.user_id;
        let api_key_id = match &caller.credential {
            Credential::Key { id, .. } => Some(ApiKeyId(*id)),
            Credential::Token => None,
        };
        retry_conflicts::<_, ChatError, _>(async || {
            let mut work = self.store.begin(Scope::on_order_of(owner)).await?;
            if let Some(replayed) = once.claim(&mut *work).await?? {
                return Ok(replayed);
            }
            work.users().lock(owner).await?.ok_or(ChatError::NotFound)?;
            may_open(work.chat().count(owner, SESSIONS_PER_USER).await?)?;
            let session = work.chat().insert(owner, api_key_id, draft).await?;
            let performed = once.record(&mut *work, &session).await?;
            work.commit().await?;
            Ok(performed)
        })
        .await
    }

    pub async fn list(
        &self,
        owner: UserId,
        state: Option<SessionState>,
        page: &Page<SessionPosition>,
    ) -> Result<Vec<ChatSession>, ChatError> {
        let mut work = self.store.begin(Scope::User(owner)).await?;
        let sessions = work.chat().list(owner, state, page).await?;
        work.commit().await?;
        Ok(sessions)
    }

    pub async fn find(&self, owner: UserId, id: ChatSessionId) -> Result<CountedSession, ChatError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let found = work.chat().find(owner, id).await?.ok_or(ChatError::NotFound)?;
        work.commit().await?;
        Ok(found)
    }

    /// Changes its title or its system prompt, ended or not.
    pub async fn change(
        &self,
        owner: UserId,
        id: ChatSessionId,
        changes: &ChatSessionChanges,
    ) -> Result<CountedSession, ChatError> {
        retry_conflicts::<_, ChatError, _>(async || {
            let mut work = self.store.begin(Scope::User(owner)).await?;
            // A change of nothing does not move it up in the list.
            if !changes.is_empty() {
                work.chat().save_changes(owner, id, changes).await?;
            }
            let found = work.chat().find(owner, id).await?.ok_or(ChatError::NotFound)?;
            work.commit().await?;
            Ok(found)
        })
        .await
    }

    /// Ends it. Ending one that has ended is no error.
    pub async fn end(&self, owner: UserId, id: ChatSessionId) -> Result<CountedSession, ChatError> {
        retry_conflicts::<_, ChatError, _>(async || {
            let mut work = self.store.begin(Scope::User(owner)).await?;
            work.chat().end(owner, id).await?;
            let ended = work.chat().find(owner, id).await?.ok_or(ChatError::NotFound)?;
            work.commit().await?;
            Ok(ended)
        })
        .await
    }

    /// Deletes it with its messages. What its calls cost stays in the usage log.
    pub async fn delete(&self, owner: UserId, id: ChatSessionId) -> Result<(), ChatError> {
        retry_conflicts::<_, ChatError, _>(async || {
            let mut work = self.store.begin(Scope::User(owner)).await?;
            if !work.chat().delete(owner, id).await? {
                return Err(ChatError::NotFound);
            }
            Ok(work.commit().await?)
        })
        .await
    }

    /// Its messages, oldest first.
    pub async fn list_messages(
        &self,
        owner: UserId,
        id: ChatSessionId,
        page: &Page<MessagePosition>,
    ) -> Result<Vec<ChatMessage>, ChatError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        work.chat().open_session(owner, id).await?.ok_or(ChatError::NotFound)?;
        let messages = work.chat().list_messages(id, page).await?;
        work.commit().await?;
        Ok(messages)
    }

    /// The latest messages of all of the user's conversations, newest first.
    pub async fn list_history(&self, owner: UserId, limit: u64) -> Result<Vec<RecalledMessage>, ChatError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let messages = work.chat().list_history(owner, limit).await?;
        work.commit().await?;
        Ok(messages)
    }
}
