//! Accounts: sign-up, log-in and sessions of the built-in identity. Off where Supabase is the identity provider.
//!
//! A password is hashed before a transaction is opened and compared after it is closed: a hash takes a thousand times
//! as long as a statement. A refresh token is exchanged once; one that comes a second time was stolen from one of its
//! two holders, so the whole session ends.

use std::sync::Arc;

use chrono::TimeDelta;
use domain::identity::{Email, Role, password_fits};
use domain::users::{NewUser, User, UserId};
use ports::clock::Clock;
use ports::identity::{
    AccessToken, CallerCache, NewSession, PasswordHasher, RefreshToken, SecretError, SecretMint, TokenIssuer,
};
use ports::randomness::Randomness;
use ports::store::{Scope, Store, StoreError, UnitOfWork};
use thiserror::Error;
use tracing::warn;

/// How many ended sessions one sweep removes at most.
const SWEPT_AT_ONCE: u64 = 1_000;

/// What a sign-up or a log-in brings.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedIn {
    pub access_token: AccessToken,
    pub refresh_token: String,
    pub user: User,
}

#[derive(Clone)]
pub struct SignUp {
    pub email: Email,
    pub password: String,
    /// Without one, the part of the e-mail before the @.
    pub name: Option<String>,
    pub user_agent: Option<String>,
}

#[derive(Debug, Error)]
pub enum AccountError {
    #[error("this e-mail address is in use")]
    EmailTaken,
    #[error("a password has 12 to 128 characters")]
    PasswordUnfit,
    /// Unknown e-mail or wrong password: the caller is not told which.
    #[error("the e-mail or the password is wrong")]
    WrongCredentials,
    #[error("the refresh token is unknown, expired, revoked or was exchanged before")]
    RefreshRefused,
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of the first administrator at a start.
#[derive(Clone, PartialEq, Eq)]
pub enum FirstAdmin {
    /// There was one already.
    Present,
    /// The account was made now, with this password if it was generated.
    Made { email: Email, generated: Option<String> },
    /// An existing account was made administrator.
    Promoted { email: Email },
}

pub struct AccountService {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub randomness: Arc<dyn Randomness>,
    pub passwords: Arc<dyn PasswordHasher>,
    pub tokens: Arc<dyn TokenIssuer>,
    pub secrets: Arc<dyn SecretMint>,
    pub cache: Arc<dyn CallerCache>,
    /// How long a session lives after its last refresh.
    pub session_ttl: TimeDelta,
}

impl AccountService {
    /// Makes the identity, its profile and a first session, all or nothing.
    pub async fn sign_up(&self, sign_up: SignUp) -> Result<SignedIn, AccountError> {
        if !password_fits(&sign_up.password) {
            return Err(AccountError::PasswordUnfit);
        }
        let hash = self.passwords.hash(sign_up.password).await?;
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let name = sign_up.name.unwrap_or_else(|| name_from(&sign_up.email));
        let user = self.register(&mut *work, &sign_up.email, &hash, name, Role::User).await?;
        let session = self.open_session(&mut *work, user.id, sign_up.user_agent).await?;
        work.commit().await?;
        self.signed_in(user, session)
    }

    pub async fn log_in(
        &self,
        email: &Email,
        password: String,
        user_agent: Option<String>,
    ) -> Result<SignedIn, AccountError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let stored = work.identity().find_credentials(email).await?;
        work.commit().await?;
        // An over-long password is not worth hashing, but an unknown e-mail must cost what a known one costs.
        let fits = password_fits(&password);
        let presented = if fits { password } else { String::new() };
        let hash = stored.as_ref().filter(|_| fits).map(|stored| stored.password_hash.clone());
        let right = self.passwords.verify(presented, hash).await?;
        let Some(stored) = stored.filter(|_| right) else { return Err(AccountError::WrongCredentials) };
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let user = work.users().find(stored.user_id).await?.ok_or(AccountError::WrongCredentials)?;
        let session = self.open_session(&mut *work, user.id, user_agent).await?;
        work.commit().await?;
        self.signed_in(user, session)
    }

    /// Exchanges a refresh token for a new pair.
    pub async fn refresh(&self, refresh_token: &str) -> Result<SignedIn, AccountError> {
        let now = self.clock.now();
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let found = work.identity().lock_refresh_token(&self.secrets.hash(refresh_token)).await?;
        let old = found.ok_or(AccountError::RefreshRefused)?;
        if old.used_at.is_some() && old.revoked_at.is_none() {
            work.identity().revoke_session(old.session_id, now).await?;
            work.commit().await?;
            warn!(user_id = %old.user_id, session_id = %old.session_id, "a refresh token came twice; its session was ended");
            return Err(AccountError::RefreshRefused);
        }
        if old.revoked_at.is_some() || old.expires_at <= now {
            return Err(AccountError::RefreshRefused);
        }
        let user = work.users().find(old.user_id).await?.ok_or(AccountError::RefreshRefused)?;
        let successor = self.issue_refresh_token(&mut *work, old.session_id, old.user_id).await?;
        work.identity().replace_refresh_token(old.id, successor.token.id, now).await?;
        work.commit().await?;
        self.signed_in(user, successor)
    }

    /// Ends the session of a refresh token. An unknown token is no error: what was asked for is the case.
    pub async fn log_out(&self, refresh_token: &str) -> Result<(), AccountError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        if let Some(token) = work.identity().lock_refresh_token(&self.secrets.hash(refresh_token)).await? {
            work.identity().revoke_session(token.session_id, self.clock.now()).await?;
        }
        Ok(work.commit().await?)
    }

    /// Sees to it that there is an administrator: the one named in the settings, else a first one if there is none.
    pub async fn ensure_admin(
        &self,
        named: Option<Email>,
        password: Option<String>,
    ) -> Result<FirstAdmin, AccountError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let email = match named {
            Some(email) => email,
            None if work.users().has_admin().await? => return Ok(FirstAdmin::Present),
            None => default_admin(),
        };
        if let Some(user_id) = work.identity().find_by_email(&email).await? {
            return self.promote(work, user_id, email).await;
        }
        drop(work);
        let generated = password.is_none().then(|| self.generate_password());
        let password = password.or_else(|| generated.clone()).unwrap_or_default();
        if !password_fits(&password) {
            return Err(AccountError::PasswordUnfit);
        }
        let hash = self.passwords.hash(password).await?;
        let mut work = self.store.begin(Scope::SERVICE).await?;
        self.register(&mut *work, &email, &hash, "Administrator".to_owned(), Role::Admin).await?;
        work.commit().await?;
        Ok(FirstAdmin::Made { email, generated })
    }

    /// As random as a refresh token, without the mark of one.
    fn generate_password(&self) -> String {
        let secret = self.secrets.mint().secret;
        secret.split_once('_').map_or_else(|| secret.clone(), |(_, random)| random.to_owned())
    }

    async fn promote(
        &self,
        mut work: Box<dyn UnitOfWork>,
        user_id: UserId,
        email: Email,
    ) -> Result<FirstAdmin, AccountError> {
        if work.users().find_role(user_id).await? == Some(Role::Admin) {
            return Ok(FirstAdmin::Present);
        }
        work.users().save_role(user_id, Role::Admin).await?;
        work.commit().await?;
        self.cache.forget(user_id);
        Ok(FirstAdmin::Promoted { email })
    }

    /// Removes sessions that ended a month ago; says how many.
    pub async fn sweep_sessions(&self) -> Result<u64, StoreError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let before = self.clock.now() - TimeDelta::days(30);
        let swept = work.identity().delete_ended_sessions(before, SWEPT_AT_ONCE).await?;
        work.commit().await?;
        Ok(swept)
    }

    /// Notes the key that signs, for operators who ask which keys were in use.
    pub async fn record_signing_key(&self) -> Result<(), StoreError> {
        let (key_id, algorithm) = self.tokens.key();
        let mut work = self.store.begin(Scope::SERVICE).await?;
        work.identity().record_signing_key(&key_id, algorithm).await?;
        work.commit().await
    }

    async fn register(
        &self,
        work: &mut dyn UnitOfWork,
        email: &Email,
        password_hash: &str,
        name: String,
        role: Role,
    ) -> Result<User, AccountError> {
        let taken = |error| match error {
            StoreError::Constraint { .. } => AccountError::EmailTaken,
            other => AccountError::Store(other),
        };
        let id = UserId(self.randomness.new_id());
        let id = work.identity().register(id, email, password_hash).await.map_err(taken)?;
        Ok(work.users().insert(&NewUser { id, name, role }).await?)
    }

    async fn open_session(
        &self,
        work: &mut dyn UnitOfWork,
        user_id: UserId,
        user_agent: Option<String>,
    ) -> Result<IssuedRefreshToken, AccountError> {
        let session = NewSession {
            id: self.randomness.new_id(),
            user_id,
            user_agent,
            expires_at: self.clock.now() + self.session_ttl,
        };
        work.identity().insert_session(&session).await?;
        self.issue_refresh_token(work, session.id, user_id).await
    }

    async fn issue_refresh_token(
        &self,
        work: &mut dyn UnitOfWork,
        session_id: uuid::Uuid,
        user_id: UserId,
    ) -> Result<IssuedRefreshToken, AccountError> {
        let minted = self.secrets.mint();
        let token = RefreshToken {
            id: self.randomness.new_id(),
            session_id,
            user_id,
            expires_at: self.clock.now() + self.session_ttl,
            used_at: None,
            revoked_at: None,
        };
        work.identity().insert_refresh_token(&token, &minted.hash).await?;
        Ok(IssuedRefreshToken { secret: minted.secret, token })
    }

    fn signed_in(&self, user: User, refresh: IssuedRefreshToken) -> Result<SignedIn, AccountError> {
        let email = user.email.clone().ok_or(AccountError::WrongCredentials)?;
        let access_token = self.tokens.issue(user.id, &email, user.role, refresh.token.session_id)?;
        Ok(SignedIn { access_token, refresh_token: refresh.secret, user })
    }
}

struct IssuedRefreshToken {
    secret: String,
    token: RefreshToken,
}

fn name_from(email: &Email) -> String {
    email.as_str().split('@').next().unwrap_or_default().chars().take(100).collect()
}

/// Who the first administrator is where no e-mail is set.
fn default_admin() -> Email {
    // The literal is an address by the rule that `parse` checks; a test holds it.
    Email::parse("admin@example.com").unwrap_or_else(|_| unreachable!("the default address is well formed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_administrator_has_an_address() {
        assert_eq!(default_admin().as_str(), "admin@example.com");
        assert_eq!(name_from(&default_admin()), "admin");
    }
}
