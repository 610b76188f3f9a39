//! Conversations on Postgres.
//!
//! Costs: one round trip per call, two for `delete`. Lists use an index and are bounded by their page; a list of one
//! state passes over the user's other conversations, which are bounded by how many a user may keep. `list_history` for
//! n messages reads the n newest conversations for the time of the n-th message, and then only conversations changed
//! since: seldom more than n. Locks only the rows that are written.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::ai::ModelId;
use domain::api_keys::ApiKeyId;
use domain::chat::{ChatMessage, ChatMessageId, ChatSession, ChatSessionChanges, ChatSessionDraft, ChatSessionId};
use domain::prices::NanoUsd;
use domain::users::UserId;
use ports::chat::{ChatRepository, CountedSession, MessagePosition, RecalledMessage, SessionPosition, SessionState};
use ports::store::{Page, StoreError};
use sea_orm::{FromQueryResult, Value};
use uuid::Uuid;

use super::rows::{inconsistent, limit};
use super::store::PgUnitOfWork;

/// The columns of a conversation that every statement reads.
const SESSION: &str = "s.id, s.user_id, s.api_key_id, s.title, s.model, s.system, s.tokens_used, s.cost_nano_usd, \
    s.created_at, s.updated_at, s.ended_at";

/// The columns of a message.
const MESSAGE: &str = "m.id, m.session_id, m.role, m.content, m.tokens, m.cost_nano_usd, m.model, m.usage_log_id, m.seq, \
    m.created_at";

/// Time limit for deleting the messages of one conversation.
const DELETE_MS: u64 = 10_000;

#[derive(FromQueryResult)]
struct SessionRow {
    id: Uuid,
    user_id: Uuid,
    api_key_id: Option<Uuid>,
    title: Option<String>,
    model: Option<String>,
    system: Option<String>,
    tokens_used: i64,
    cost_nano_usd: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
}

#[derive(FromQueryResult)]
struct CountedRow {
    messages: i64,
    #[sea_orm(nested)]
    session: SessionRow,
}

#[derive(FromQueryResult)]
struct MessageRow {
    id: Uuid,
    session_id: Uuid,
    role: String,
    content: String,
    tokens: i64,
    cost_nano_usd: i64,
    model: Option<String>,
    usage_log_id: Option<Uuid>,
    seq: i64,
    created_at: DateTime<Utc>,
}

#[derive(FromQueryResult)]
struct RecalledRow {
    title: Option<String>,
    #[sea_orm(nested)]
    message: MessageRow,
}

#[async_trait]
impl ChatRepository for PgUnitOfWork {
    async fn insert(
        &mut self,
        owner: UserId,
        api_key_id: Option<ApiKeyId>,
        draft: &ChatSessionDraft,
    ) -> Result<ChatSession, StoreError> {
        let sql = format!(
            "INSERT INTO chat_sessions AS s (user_id, api_key_id, title, model, system) VALUES ($1, $2, $3, $4, $5) \
             RETURNING {SESSION}"
        );
        let values = [
            owner.0.into(),
            api_key_id.map(|id| id.0).into(),
            draft.title.clone().into(),
            draft.model.as_ref().map(ToString::to_string).into(),
            draft.system.clone().into(),
        ];
        let row = self.read_one(&sql, values).await?;
        row.map(session).transpose()?.ok_or_else(|| inconsistent("chat_sessions", owner))
    }

    async fn count(&mut self, owner: UserId, most: i64) -> Result<i64, StoreError> {
        let sql = "SELECT count(*) FROM (SELECT FROM chat_sessions WHERE user_id = $1 LIMIT $2) AS kept";
        Ok(self.read_value(sql, [owner.0.into(), most.into()]).await?.unwrap_or_default())
    }

    async fn open_session(&mut self, owner: UserId, id: ChatSessionId) -> Result<Option<ChatSession>, StoreError> {
        let sql = format!("SELECT {SESSION} FROM chat_sessions AS s WHERE s.id = $1 AND s.user_id = $2");
        self.read_one(&sql, [id.0.into(), owner.0.into()]).await?.map(session).transpose()
    }

    async fn find(&mut self, owner: UserId, id: ChatSessionId) -> Result<Option<CountedSession>, StoreError> {
        let sql = format!(
            "SELECT (SELECT count(*) FROM chat_messages AS m WHERE m.session_id = s.id) AS messages, {SESSION} \
             FROM chat_sessions AS s WHERE s.id = $1 AND s.user_id = $2"
        );
        let row: Option<CountedRow> = self.read_one(&sql, [id.0.into(), owner.0.into()]).await?;
        row.map(|row| Ok(CountedSession { messages: row.messages, session: session(row.session)? })).transpose()
    }

    async fn list(
        &mut self,
        owner: UserId,
        state: Option<SessionState>,
        page: &Page<SessionPosition>,
    ) -> Result<Vec<ChatSession>, StoreError> {
        let in_state = match state {
            None => "true",
            Some(SessionState::Open) => "s.ended_at IS NULL",
            Some(SessionState::Ended) => "s.ended_at IS NOT NULL",
        };
        let mut values: Vec<Value> = vec![owner.0.into(), limit(page.limit)];
        let after = if let Some((updated_at, id)) = page.after {
            values.extend([updated_at.into(), id.0.into()]);
            "(s.updated_at, s.id) < ($3, $4)"
        } else {
            "true"
        };
        let sql = format!(
            "SELECT {SESSION} FROM chat_sessions AS s WHERE s.user_id = $1 AND {in_state} AND {after} \
             ORDER BY s.updated_at DESC, s.id DESC LIMIT $2"
        );
        self.read_all(&sql, values).await?.into_iter().map(session).collect()
    }

    async fn save_changes(
        &mut self,
        owner: UserId,
        id: ChatSessionId,
        changes: &ChatSessionChanges,
    ) -> Result<bool, StoreError> {
        let sql = "UPDATE chat_sessions SET title = CASE WHEN $3 THEN $4 ELSE title END, \
            system = CASE WHEN $5 THEN $6 ELSE system END WHERE id = $1 AND user_id = $2";
        let values = [
            id.0.into(),
            owner.0.into(),
            changes.title.is_some().into(),
            changes.title.clone().flatten().into(),
            changes.system.is_some().into(),
            changes.system.clone().flatten().into(),
        ];
        Ok(self.run(sql, values).await? > 0)
    }

    async fn end(&mut self, owner: UserId, id: ChatSessionId) -> Result<bool, StoreError> {
        let sql = "UPDATE chat_sessions SET ended_at = now() WHERE id = $1 AND user_id = $2 AND ended_at IS NULL";
        Ok(self.run(sql, [id.0.into(), owner.0.into()]).await? > 0)
    }

    async fn delete(&mut self, owner: UserId, id: ChatSessionId) -> Result<bool, StoreError> {
        self.transaction.allow(DELETE_MS).await?;
        let sql = "DELETE FROM chat_sessions WHERE id = $1 AND user_id = $2";
        Ok(self.run(sql, [id.0.into(), owner.0.into()]).await? > 0)
    }

    async fn list_messages(
        &mut self,
        session: ChatSessionId,
        page: &Page<MessagePosition>,
    ) -> Result<Vec<ChatMessage>, StoreError> {
        let mut values: Vec<Value> = vec![session.0.into(), limit(page.limit)];
        let after = if let Some((created_at, seq)) = page.after {
            values.extend([created_at.into(), seq.into()]);
            "(m.created_at, m.seq) > ($3, $4)"
        } else {
            "true"
        };
        let sql = format!(
            "SELECT {MESSAGE} FROM chat_messages AS m WHERE m.session_id = $1 AND {after} \
             ORDER BY m.created_at, m.seq LIMIT $2"
        );
        self.read_all(&sql, values).await?.into_iter().map(message).collect()
    }

    async fn list_latest_messages(
        &mut self,
        session: ChatSessionId,
        rows_max: u64,
    ) -> Result<Vec<ChatMessage>, StoreError> {
        let sql = format!(
            "SELECT {MESSAGE} FROM chat_messages AS m WHERE m.session_id = $1 \
             ORDER BY m.created_at DESC, m.seq DESC LIMIT $2"
        );
        let rows: Vec<MessageRow> = self.read_all(&sql, [session.0.into(), limit(rows_max)]).await?;
        rows.into_iter().rev().map(message).collect()
    }

    async fn list_history(&mut self, owner: UserId, rows_max: u64) -> Result<Vec<RecalledMessage>, StoreError> {
        let sql = include_str!("sql/list_chat_history.sql");
        let rows: Vec<RecalledRow> = self.read_all(sql, [owner.0.into(), limit(rows_max)]).await?;
        let recalled = |row: RecalledRow| Ok(RecalledMessage { title: row.title, message: message(row.message)? });
        rows.into_iter().map(recalled).collect()
    }
}

fn session(row: SessionRow) -> Result<ChatSession, StoreError> {
    let unfit = || inconsistent("chat_sessions", row.id);
    Ok(ChatSession {
        id: ChatSessionId(row.id),
        user_id: UserId(row.user_id),
        api_key_id: row.api_key_id.map(ApiKeyId),
        title: row.title,
        model: row.model.as_deref().map(ModelId::parse).transpose().map_err(|_| unfit())?,
        system: row.system,
        tokens: row.tokens_used,
        cost: NanoUsd(row.cost_nano_usd),
        created_at: row.created_at,
        updated_at: row.updated_at,
        ended_at: row.ended_at,
    })
}

fn message(row: MessageRow) -> Result<ChatMessage, StoreError> {
    Ok(ChatMessage {
        id: ChatMessageId(row.id),
        session_id: ChatSessionId(row.session_id),
        role: row.role.parse().map_err(|_| inconsistent("chat_messages", row.id))?,
        content: row.content,
        tokens: row.tokens,
        cost: NanoUsd(row.cost_nano_usd),
        model: row.model,
        usage_log_id: row.usage_log_id,
        seq: row.seq,
        created_at: row.created_at,
    })
}
