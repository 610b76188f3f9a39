//! The own account: its password, its sessions, and the proof that its holder is present.
//!
//! Promise: a password is changed only with the current one, and only once with it: the other sessions and their
//! refresh tokens end in the same transaction. Access tokens that were issued stay valid until they expire, a quarter
//! of an hour at most.

use domain::identity::{Email, StoredEmail, normal_password};
use domain::users::UserId;
use ports::identity::{LogInSessionPosition, Session, StoredCredentials};
use ports::store::{Page, Scope};
use tracing::info;
use uuid::Uuid;

use super::accounts::{AccountError, AccountService, judge_password, keep_credentials};

/// The input of a password change.
pub struct PasswordChange {
    /// The current password.
    pub current: String,
    pub password: String,
    /// A code of the second factor, where there is one: the change authenticates the session anew.
    pub code: Option<String>,
}

impl AccountService {
    /// The address that an account logs in with; failed attempts are counted by it.
    pub async fn address_of(&self, user_id: UserId) -> Result<StoredEmail, AccountError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let email = work.identity().find_email(user_id).await?;
        work.commit().await?;
        email.ok_or(AccountError::WrongCredentials)
    }

    /// Whether a log-in to the account with this address came from the network, as far as sessions are stored.
    pub async fn knows_network(&self, email: &str, network: &str) -> Result<bool, AccountError> {
        let mark = self.secrets.mark(network);
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let mut is_known = false;
        for spelling in Email::stored_spellings(email) {
            is_known = is_known || work.identity().knows_network(&spelling, &mark).await?;
        }
        work.commit().await?;
        Ok(is_known)
    }

    /// Changes the password and ends every other session. The calling session goes on, authenticated anew.
    pub async fn change_password(
        &self,
        user_id: UserId,
        session_id: Option<Uuid>,
        change: PasswordChange,
    ) -> Result<(), AccountError> {
        let PasswordChange { current, password, code } = change;
        let stored = self.find_own_credentials(user_id).await?;
        self.check_password(&current, Some(&stored)).await?;
        judge_password(&password, stored.email.as_str())?;
        if normal_password(&current) == normal_password(&password) {
            return Err(AccountError::PasswordUnchanged);
        }
        let hash = self.hash_password(&password).await?;
        let now = self.clock.now();
        let mut work = self.store.begin(Scope::on_order_of(user_id)).await?;
        keep_credentials(&mut *work, &stored).await?;
        self.check_second_factor(&mut *work, user_id, code.as_deref()).await?;
        work.identity().save_password(user_id, &hash).await?;
        let ended = work.identity().revoke_other_sessions(user_id, session_id, now).await?;
        if let Some(session_id) = session_id {
            work.identity().save_authenticated_at(session_id, now).await?;
        }
        work.commit().await?;
        info!(%user_id, ended, "a password was changed");
        Ok(())
    }

    /// Proves anew that the holder of a session is present, by the password and the second factor where there is one.
    pub async fn reauthenticate(
        &self,
        user_id: UserId,
        session_id: Option<Uuid>,
        password: String,
        code: Option<String>,
    ) -> Result<(), AccountError> {
        let session_id = session_id.ok_or(AccountError::SessionNotFound)?;
        let stored = self.find_own_credentials(user_id).await?;
        self.check_password(&password, Some(&stored)).await?;
        let now = self.clock.now();
        let mut work = self.store.begin(Scope::SERVICE).await?;
        keep_credentials(&mut *work, &stored).await?;
        let session = work.identity().find_session(session_id).await?;
        let is_open = session.is_some_and(|session| session.user_id == user_id && session.revoked_at.is_none());
        if !is_open {
            return Err(AccountError::SessionNotFound);
        }
        self.check_second_factor(&mut *work, user_id, code.as_deref()).await?;
        work.identity().save_authenticated_at(session_id, now).await?;
        Ok(work.commit().await?)
    }

    async fn find_own_credentials(&self, user_id: UserId) -> Result<StoredCredentials, AccountError> {
        let email = self.address_of(user_id).await?;
        let stored = self.find_credentials(email.as_str()).await?;
        stored.filter(|stored| stored.user_id == user_id).ok_or(AccountError::WrongCredentials)
    }

    /// The open sessions of a user, newest first.
    pub async fn list_sessions(
        &self,
        user_id: UserId,
        after: Option<LogInSessionPosition>,
        limit: u64,
    ) -> Result<Vec<Session>, AccountError> {
        let now = self.clock.now();
        let opened_after = now.checked_sub_signed(self.session_life).unwrap_or(now);
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let sessions = work.identity().list_sessions(user_id, now, opened_after, &Page { after, limit }).await?;
        work.commit().await?;
        Ok(sessions)
    }

    pub fn position(session: &Session) -> LogInSessionPosition {
        (session.created_at, session.id)
    }

    /// Ends one of the own sessions. One that has ended before is no error.
    pub async fn end_session(&self, user_id: UserId, session_id: Uuid) -> Result<(), AccountError> {
        let mut work = self.store.begin(Scope::on_order_of(user_id)).await?;
        let session = work.identity().find_session(session_id).await?;
        session.filter(|session| session.user_id == user_id).ok_or(AccountError::SessionNotFound)?;
        work.identity().revoke_session(session_id, self.clock.now()).await?;
        Ok(work.commit().await?)
    }

    /// Ends all of the own sessions except the calling one.
    pub async fn end_other_sessions(&self, user_id: UserId, kept: Option<Uuid>) -> Result<u64, AccountError> {
        let mut work = self.store.begin(Scope::on_order_of(user_id)).await?;
        let ended = work.identity().revoke_other_sessions(user_id, kept, self.clock.now()).await?;
        work.commit().await?;
        Ok(ended)
    }
}
