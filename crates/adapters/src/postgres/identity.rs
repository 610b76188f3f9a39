//! Identity on Postgres. The identities are reached only through definer functions (`identity_*`): no SQL here names
//! their table, which on Supabase belongs to another service.
//!
//! Costs: one round trip per call. Locks: `lock_refresh_token` locks the token's row.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::identity::{Email, StoredEmail};
use domain::users::UserId;
use ports::identity::{
    IdentityRepository, LogInSessionPosition, NewSession, RefreshToken, SecondFactor, SecretHash, Session,
    StoredCredentials,
};
use ports::store::{Page, StoreError};
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, FromQueryResult, QueryFilter, QuerySelect, Select};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::entities::{refresh_tokens, sessions};
use super::error::store_error;
use super::rows::{inconsistent, limit};
use super::store::PgUnitOfWork;

/// The longest stored user agent, in characters.
const USER_AGENT_MAX: usize = 255;

/// The name of the one row with a secret itself, beside its fingerprint. Only `app_service` may read the table.
const KEPT_KEY: &str = "kept";

#[derive(FromQueryResult)]
struct CredentialsRow {
    user_id: Uuid,
    email: String,
    encrypted_password: Option<String>,
}

#[derive(FromQueryResult)]
struct SecondFactorRow {
    sealed_secret: Vec<u8>,
    confirmed_at: Option<DateTime<Utc>>,
    last_step: Option<i64>,
}

#[derive(FromQueryResult)]
struct SessionRow {
    id: Uuid,
    user_id: Uuid,
    user_agent: Option<String>,
    created_at: DateTime<Utc>,
    last_seen_at: DateTime<Utc>,
    authenticated_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    revoked_at: Option<DateTime<Utc>>,
}

impl From<SessionRow> for Session {
    fn from(row: SessionRow) -> Self {
        Self {
            id: row.id,
            user_id: UserId(row.user_id),
            user_agent: row.user_agent,
            created_at: row.created_at,
            last_used_at: row.last_seen_at,
            authenticated_at: row.authenticated_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
        }
    }
}

#[async_trait]
impl IdentityRepository for PgUnitOfWork {
    async fn register(&mut self, id: UserId, email: &Email, password_hash: &str) -> Result<(), StoreError> {
        let values = [id.0.into(), email.as_str().into(), password_hash.into()];
        self.run("SELECT identity_register($1, $2, $3)", values).await.map(drop)
    }

    async fn find_credentials(&mut self, spelling: &str) -> Result<Option<StoredCredentials>, StoreError> {
        let sql = "SELECT user_id, email, encrypted_password FROM identity_credentials($1)";
        let row: Option<CredentialsRow> = self.read_one(sql, [spelling.into()]).await?;
        // Without a password, an identity has no credentials for a login.
        Ok(row.and_then(|row| {
            let (email, password_hash) = (StoredEmail::new(&row.email)?, row.encrypted_password?);
            Some(StoredCredentials { user_id: UserId(row.user_id), email, password_hash })
        }))
    }

    async fn save_password(&mut self, user_id: UserId, password_hash: &str) -> Result<(), StoreError> {
        let sql = "SELECT identity_set_password($1, $2)";
        self.run(sql, [user_id.0.into(), password_hash.into()]).await.map(drop)
    }

    async fn lock_credentials(&mut self, user_id: UserId) -> Result<(), StoreError> {
        // A row lock that no other login can take, unlike an advisory lock.
        let sql = "SELECT FROM users WHERE id = $1 FOR NO KEY UPDATE";
        self.run(sql, [user_id.0.into()]).await.map(drop)
    }

    async fn delete(&mut self, user_id: UserId) -> Result<(), StoreError> {
        self.run("SELECT identity_delete($1)", [user_id.0.into()]).await.map(drop)
    }

    async fn exists(&mut self, user_id: UserId) -> Result<bool, StoreError> {
        Ok(self.read_value("SELECT identity_exists($1)", [user_id.0.into()]).await?.unwrap_or_default())
    }

    async fn find_by_email(&mut self, email: &Email) -> Result<Option<UserId>, StoreError> {
        let id: Option<Option<Uuid>> = self.read_value("SELECT identity_find($1)", [email.as_str().into()]).await?;
        Ok(id.flatten().map(UserId))
    }

    async fn find_email(&mut self, user_id: UserId) -> Result<Option<StoredEmail>, StoreError> {
        let email: Option<Option<String>> = self.read_value("SELECT identity_email($1)", [user_id.0.into()]).await?;
        Ok(email.flatten().as_deref().and_then(StoredEmail::new))
    }

    async fn owns_address(&mut self, user_id: UserId, email: &Email) -> Result<bool, StoreError> {
        let values = [user_id.0.into(), email.as_str().into()];
        Ok(self.read_value("SELECT identity_owns_address($1, $2)", values).await?.unwrap_or_default())
    }

    async fn insert_session(&mut self, session: &NewSession) -> Result<(), StoreError> {
        let row = sessions::ActiveModel {
            id: Set(session.id),
            user_id: Set(session.user_id.0),
            kind: Set("api".to_owned()),
            user_agent: Set(session.user_agent.as_deref().map(|agent| agent.chars().take(USER_AGENT_MAX).collect())),
            network_mark: Set(session.network_mark.clone()),
            authenticated_at: Set(Some(session.authenticated_at)),
            expires_at: Set(session.expires_at),
            revoked_at: NotSet,
        };
        let insert = sessions::Entity::insert(row).exec_without_returning(&self.transaction);
        insert.await.map(drop).map_err(|error| store_error(&error))
    }

    async fn find_second_factor(&mut self, user_id: UserId) -> Result<Option<SecondFactor>, StoreError> {
        let sql = "SELECT sealed_secret, confirmed_at, last_step FROM second_factors WHERE user_id = $1";
        let row: Option<SecondFactorRow> = self.read_one(sql, [user_id.0.into()]).await?;
        Ok(row.map(|SecondFactorRow { sealed_secret, confirmed_at, last_step }| SecondFactor {
            sealed_secret,
            confirmed_at,
            last_step,
        }))
    }

    async fn offer_second_factor(&mut self, user_id: UserId, sealed: &[u8]) -> Result<(), StoreError> {
        let sql = "INSERT INTO second_factors AS f (user_id, sealed_secret) VALUES ($1, $2) ON CONFLICT (user_id) \
            DO UPDATE SET sealed_secret = $2, created_at = now() WHERE f.confirmed_at IS NULL";
        self.run(sql, [user_id.0.into(), sealed.to_vec().into()]).await.map(drop)
    }

    async fn confirm_second_factor(
        &mut self,
        user_id: UserId,
        at: DateTime<Utc>,
        step: i64,
        recovery_marks: &[String],
    ) -> Result<(), StoreError> {
        let sql = "UPDATE second_factors SET confirmed_at = $2, last_step = $3, recovery_marks = $4 WHERE user_id = $1";
        let values = [user_id.0.into(), at.into(), step.into(), recovery_marks.to_vec().into()];
        self.run(sql, values).await.map(drop)
    }

    async fn save_totp_step(&mut self, user_id: UserId, step: i64) -> Result<(), StoreError> {
        let sql = "UPDATE second_factors SET last_step = $2 WHERE user_id = $1";
        self.run(sql, [user_id.0.into(), step.into()]).await.map(drop)
    }

    async fn use_recovery_code(&mut self, user_id: UserId, mark: &str) -> Result<bool, StoreError> {
        let sql = "UPDATE second_factors SET recovery_marks = array_remove(recovery_marks, $2::text) \
            WHERE user_id = $1 AND $2::text = ANY (recovery_marks)";
        Ok(self.run(sql, [user_id.0.into(), mark.into()]).await? == 1)
    }

    async fn delete_second_factor(&mut self, user_id: UserId) -> Result<(), StoreError> {
        self.run("DELETE FROM second_factors WHERE user_id = $1", [user_id.0.into()]).await.map(drop)
    }

    async fn find_session(&mut self, id: Uuid) -> Result<Option<Session>, StoreError> {
        let row: Option<SessionRow> = self.read_one(include_str!("sql/find_session.sql"), [id.into()]).await?;
        Ok(row.map(Session::from))
    }

    async fn list_sessions(
        &mut self,
        user_id: UserId,
        now: DateTime<Utc>,
        opened_after: DateTime<Utc>,
        page: &Page<LogInSessionPosition>,
    ) -> Result<Vec<Session>, StoreError> {
        let (at, id) = page.after.unzip();
        let values = [user_id.0.into(), now.into(), opened_after.into(), at.into(), id.into(), limit(page.limit)];
        let rows: Vec<SessionRow> = self.read_all(include_str!("sql/list_open_sessions.sql"), values).await?;
        Ok(rows.into_iter().map(Session::from).collect())
    }

    async fn save_authenticated_at(&mut self, session_id: Uuid, at: DateTime<Utc>) -> Result<(), StoreError> {
        let sql = "UPDATE sessions SET authenticated_at = $2 WHERE id = $1";
        self.run(sql, [session_id.into(), at.into()]).await.map(drop)
    }

    async fn knows_network(&mut self, spelling: &str, network_mark: &[u8]) -> Result<bool, StoreError> {
        let values = [spelling.into(), network_mark.to_vec().into()];
        Ok(self.read_value(include_str!("sql/knows_network.sql"), values).await?.unwrap_or_default())
    }

    async fn revoke_other_sessions(
        &mut self,
        user_id: UserId,
        kept: Option<Uuid>,
        at: DateTime<Utc>,
    ) -> Result<u64, StoreError> {
        self.run(include_str!("sql/revoke_other_sessions.sql"), [user_id.0.into(), kept.into(), at.into()]).await
    }

    async fn insert_refresh_token(&mut self, token: &RefreshToken, hash: &SecretHash) -> Result<(), StoreError> {
        let values = [
            token.id.into(),
            token.session_id.into(),
            token.user_id.0.into(),
            hash.clone().into(),
            token.expires_at.into(),
            token.used_at.into(),
            token.revoked_at.into(),
        ];
        self.run(include_str!("sql/insert_refresh_token.sql"), values).await.map(drop)
    }

    async fn lock_refresh_token(&mut self, hash: &SecretHash) -> Result<Option<RefreshToken>, StoreError> {
        let row = with_hash(hash).lock_exclusive().one(&self.transaction).await;
        Ok(row.map_err(|error| store_error(&error))?.as_ref().map(refresh_token))
    }

    async fn find_refresh_token(&mut self, hash: &SecretHash) -> Result<Option<RefreshToken>, StoreError> {
        let row = with_hash(hash).one(&self.transaction).await;
        Ok(row.map_err(|error| store_error(&error))?.as_ref().map(refresh_token))
    }

    async fn replace_refresh_token(&mut self, id: Uuid, successor: Uuid, at: DateTime<Utc>) -> Result<(), StoreError> {
        let row = refresh_tokens::ActiveModel {
            replaced_by: Set(Some(successor)),
            used_at: Set(Some(at)),
            ..Default::default()
        };
        let update = refresh_tokens::Entity::update_many().set(row).filter(refresh_tokens::Column::Id.eq(id));
        update.exec(&self.transaction).await.map(drop).map_err(|error| store_error(&error))
    }

    async fn list_live(&mut self, holders: &[(UserId, Option<Uuid>)]) -> Result<Vec<bool>, StoreError> {
        let users: Vec<Uuid> = holders.iter().map(|(user_id, _)| user_id.0).collect();
        let sessions: Vec<Uuid> = holders.iter().map(|(_, session_id)| session_id.unwrap_or_default()).collect();
        self.read_values(include_str!("sql/list_live.sql"), [users.into(), sessions.into()]).await
    }

    async fn revoke_session(&mut self, session_id: Uuid, at: DateTime<Utc>) -> Result<(), StoreError> {
        self.run(include_str!("sql/revoke_session.sql"), [session_id.into(), at.into()]).await.map(drop)
    }

    async fn record_signing_key(&mut self, key_id: &str, algorithm: &str) -> Result<(), StoreError> {
        // The port gives only the key's id, so the fingerprint is that of the id.
        let sql = "INSERT INTO signing_keys (kid, algorithm, fingerprint) VALUES ($1, $2, $3) \
            ON CONFLICT (kid) DO UPDATE SET last_used_at = now(), retired_at = NULL";
        let fingerprint = Sha256::digest(key_id.as_bytes()).to_vec();
        self.run(sql, [key_id.into(), algorithm.into(), fingerprint.into()]).await.map(drop)
    }

    async fn keep_signing_key(&mut self, candidate: &[u8]) -> Result<Vec<u8>, StoreError> {
        // A second process waits for the first to commit, and then reads in a statement that sees the row.
        let keep = "INSERT INTO signing_keys (kid, algorithm, fingerprint, secret) VALUES ($1, 'kept', sha256($2), $2) \
            ON CONFLICT (kid) DO NOTHING";
        self.run(keep, [KEPT_KEY.into(), candidate.to_vec().into()]).await?;
        let kept: Option<Vec<u8>> =
            self.read_value("SELECT secret FROM signing_keys WHERE kid = $1", [KEPT_KEY.into()]).await?;
        kept.ok_or_else(|| inconsistent("signing_keys", KEPT_KEY))
    }

    async fn delete_ended_sessions(&mut self, before: DateTime<Utc>, rows_max: u64) -> Result<u64, StoreError> {
        self.run(include_str!("sql/delete_ended_sessions.sql"), [before.into(), limit(rows_max)]).await
    }
}

fn with_hash(hash: &SecretHash) -> Select<refresh_tokens::Entity> {
    refresh_tokens::Entity::find().filter(Expr::cust_with_values("token_hash = $1", [hash.clone()]))
}

fn refresh_token(row: &refresh_tokens::Model) -> RefreshToken {
    RefreshToken {
        id: row.id,
        session_id: row.session_id,
        user_id: UserId(row.user_id),
        expires_at: row.expires_at,
        used_at: row.used_at,
        revoked_at: row.revoked_at,
    }
}
