//! Accounts: sign-up, log-in and sessions of the built-in identity. Off where Supabase is the identity provider.
//!
//! A password is hashed before a transaction is opened and compared after it is closed: a hash takes a thousand times
//! as long as a statement. It is hashed in one spelling (NFKC); a hash of an earlier release may be of another.
//!
//! A refresh token is exchanged for one successor. If it is sent again within `GRACE`, it gets the same successor: two
//! tabs of one browser do so. Later, or after the successor was exchanged, one of its two holders has stolen it, so the
//! whole session ends.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use domain::identity::{
    CommonPassword, Email, Role, common_password, new_password_fits, normal_password, password_fits,
};
use domain::users::{NewUser, User, UserId};
use ports::clock::Clock;
use ports::identity::{
    AccessToken, CallerCache, NewSession, OpaqueSecret, PasswordHasher, RefreshToken, RefreshTokenMint, SecretError,
    StoredCredentials, TokenIssuer, TokenScope, TotpSecrets,
};
use ports::randomness::Randomness;
use ports::store::{Scope, Store, StoreError, UnitOfWork};
use thiserror::Error;
use tracing::warn;

use crate::conflicts::{may_conflict, retry_conflicts};

/// How long an exchanged refresh token is still answered with its successor.
const GRACE: TimeDelta = TimeDelta::seconds(30);

/// How many ended sessions one sweep removes at most.
const SWEPT_AT_ONCE: u64 = 1_000;

/// The result of a sign-up or a log-in.
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
    /// If `None`: the part of the e-mail before the @.
    pub name: Option<String>,
    pub origin: RequestOrigin,
}

/// Where a sign-up or a log-in comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestOrigin {
    pub user_agent: Option<String>,
    /// The client's network as text: an IPv4 address, or the prefix of an IPv6 address that one client has.
    pub network: Option<String>,
}

#[derive(Debug, Error)]
pub enum AccountError {
    #[error("this e-mail address is in use")]
    EmailTaken,
    #[error("a password has 12 to 128 characters")]
    PasswordUnfit,
    #[error("the password {0}")]
    PasswordCommon(CommonPassword),
    #[error("the new password is the one that is in use")]
    PasswordUnchanged,
    #[error("the account has a second factor: send a code of it too")]
    TotpRequired,
    #[error("the code is wrong, or was used before")]
    TotpWrong,
    #[error("the account has a second factor already")]
    TotpEnrolled,
    #[error("the account has no second factor")]
    TotpMissing,
    #[error("there is no such session")]
    SessionNotFound,
    /// Unknown e-mail or wrong password: the caller does not learn which.
    #[error("the e-mail or the password is wrong")]
    WrongCredentials,
    #[error("the refresh token is unknown, expired, revoked or was exchanged before")]
    RefreshRefused,
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Store(#[from] StoreError),
}
may_conflict!(AccountError);

pub struct AccountService {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub randomness: Arc<dyn Randomness>,
    pub passwords: Arc<dyn PasswordHasher>,
    pub tokens: Arc<dyn TokenIssuer>,
    pub secrets: Arc<dyn RefreshTokenMint>,
    pub cache: Arc<dyn CallerCache>,
    /// How long a session lives after its last refresh.
    pub session_ttl: TimeDelta,
    pub second_factors: Arc<dyn TotpSecrets>,
    /// Whether an administrator without a second factor may only set one up.
    pub require_admin_totp: bool,
    /// How long a session lives at most, however it is used.
    pub session_life: TimeDelta,
}

impl AccountService {
    /// Creates the identity, its profile and a first session, all or nothing.
    pub async fn sign_up(&self, sign_up: SignUp) -> Result<SignedIn, AccountError> {
        judge_password(&sign_up.password, sign_up.email.as_str())?;
        let hash = self.hash_password(&sign_up.password).await?;
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let name = sign_up.name.unwrap_or_else(|| name_from(&sign_up.email));
        let user = self.register(&mut *work, &sign_up.email, &hash, name, Role::User).await?;
        let session = self.open_session(&mut *work, user.id, sign_up.origin).await?;
        work.commit().await?;
        self.signed_in(user, session, TokenScope::Everything)
    }

    /// `email` is as it was entered: an account is found by each spelling under which it may be stored.
    pub async fn log_in(
        &self,
        email: &str,
        password: String,
        code: Option<String>,
        origin: RequestOrigin,
    ) -> Result<SignedIn, AccountError> {
        let stored = self.find_credentials(email).await?;
        let rehashed = self.check_password(&password, stored.as_ref()).await?;
        let stored = stored.ok_or(AccountError::WrongCredentials)?;
        let mut work = self.store.begin(Scope::SERVICE).await?;
        keep_credentials(&mut *work, &stored).await?;
        let user = work.users().find(stored.user_id).await?.ok_or(AccountError::WrongCredentials)?;
        if let Some(hash) = rehashed {
            work.identity().save_password(user.id, &hash).await?;
        }
        self.check_second_factor(&mut *work, user.id, code.as_deref()).await?;
        let session = self.open_session(&mut *work, user.id, origin).await?;
        let scope = self.scope_of(&mut *work, &user).await?;
        work.commit().await?;
        self.signed_in(user, session, scope)
    }

    pub(super) async fn find_credentials(&self, email: &str) -> Result<Option<StoredCredentials>, AccountError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let mut stored = None;
        for spelling in Email::stored_spellings(email) {
            stored = stored.or(work.identity().find_credentials(&spelling).await?);
        }
        work.commit().await?;
        Ok(stored)
    }

    /// Compares the spelling that is hashed today, then the one that was entered. Where only the latter is right, the
    /// hash of the former is returned, to replace the stored one. The work depends only on what was entered.
    pub(super) async fn check_password(
        &self,
        password: &str,
        stored: Option<&StoredCredentials>,
    ) -> Result<Option<String>, AccountError> {
        let normal = normal_password(password);
        // An over-long password is not worth hashing, but an unknown e-mail must cost as much as a known one.
        let fits = password_fits(password);
        let hash = || stored.filter(|_| fits).map(|stored| stored.password_hash.clone());
        let presented = |text: &str| if fits { text.to_owned() } else { String::new() };
        if self.passwords.verify(presented(&normal), hash()).await? {
            return Ok(None);
        }
        if normal != password && self.passwords.verify(presented(password), hash()).await? {
            return Ok(Some(self.passwords.hash(normal).await?));
        }
        Err(AccountError::WrongCredentials)
    }

    pub(super) async fn hash_password(&self, password: &str) -> Result<String, AccountError> {
        if !new_password_fits(password) {
            return Err(AccountError::PasswordUnfit);
        }
        Ok(self.passwords.hash(normal_password(password)).await?)
    }

    /// Exchanges a refresh token for a new pair.
    pub async fn refresh(&self, refresh_token: &str) -> Result<SignedIn, AccountError> {
        retry_conflicts(async || self.exchange(refresh_token).await).await
    }

    async fn exchange(&self, refresh_token: &str) -> Result<SignedIn, AccountError> {
        let now = self.clock.now();
        let successor = self.secrets.successor(refresh_token);
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let found = work.identity().lock_refresh_token(&self.secrets.hash(refresh_token)).await?;
        let old = found.filter(|old| old.revoked_at.is_none()).ok_or(AccountError::RefreshRefused)?;
        let session = work.identity().find_session(old.session_id).await?;
        let session = session.filter(|session| session.revoked_at.is_none()).ok_or(AccountError::RefreshRefused)?;
        let ends_at = self.ends_at(session.created_at);
        if ends_at <= now {
            return Err(AccountError::RefreshRefused);
        }
        let issued = match old.used_at {
            None if old.expires_at <= now => return Err(AccountError::RefreshRefused),
            None => {
                let issued =
                    self.keep_refresh_token(&mut *work, successor, old.session_id, old.user_id, ends_at).await?;
                work.identity().replace_refresh_token(old.id, issued.token.id, now).await?;
                issued
            }
            Some(used_at) => match self.find_successor(&mut *work, &old, successor, used_at, now).await? {
                Some(issued) => issued,
                None => return self.end_stolen_session(work, &old, now).await,
            },
        };
        let user = work.users().find(old.user_id).await?.ok_or(AccountError::RefreshRefused)?;
        let scope = self.scope_of(&mut *work, &user).await?;
        work.commit().await?;
        self.signed_in(user, issued, scope)
    }

    /// The successor that an exchanged token got recently, as long as it was not exchanged in turn.
    async fn find_successor(
        &self,
        work: &mut dyn UnitOfWork,
        old: &RefreshToken,
        successor: OpaqueSecret,
        used_at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Option<IssuedRefreshToken>, AccountError> {
        if used_at + GRACE <= now {
            return Ok(None);
        }
        let found = work.identity().find_refresh_token(&successor.hash).await?;
        let alive = found.filter(|token| {
            token.session_id == old.session_id && token.used_at.is_none() && token.revoked_at.is_none()
        });
        Ok(alive.map(|token| IssuedRefreshToken { secret: successor.secret, token }))
    }

    async fn end_stolen_session(
        &self,
        mut work: Box<dyn UnitOfWork>,
        old: &RefreshToken,
        now: DateTime<Utc>,
    ) -> Result<SignedIn, AccountError> {
        work.identity().revoke_session(old.session_id, now).await?;
        work.commit().await?;
        warn!(user_id = %old.user_id, session_id = %old.session_id, "a refresh token came twice; its session was ended");
        Err(AccountError::RefreshRefused)
    }

    /// Ends the session of a refresh token. An unknown token is no error: there is no session to end.
    pub async fn log_out(&self, refresh_token: &str) -> Result<(), AccountError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        if let Some(token) = work.identity().lock_refresh_token(&self.secrets.hash(refresh_token)).await? {
            work.identity().revoke_session(token.session_id, self.clock.now()).await?;
        }
        Ok(work.commit().await?)
    }

    /// Deletes sessions that ended a month ago; returns how many.
    pub async fn sweep_sessions(&self) -> Result<u64, StoreError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let before = self.clock.now() - TimeDelta::days(30);
        let swept = work.identity().delete_ended_sessions(before, SWEPT_AT_ONCE).await?;
        work.commit().await?;
        Ok(swept)
    }

    /// Records the signing key, for operators who ask which keys were in use.
    pub async fn record_signing_key(&self) -> Result<(), StoreError> {
        let (key_id, algorithm) = self.tokens.key();
        let mut work = self.store.begin(Scope::SERVICE).await?;
        work.identity().record_signing_key(&key_id, algorithm).await?;
        work.commit().await
    }

    pub(super) async fn register(
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
        work.identity().register(id, email, password_hash).await.map_err(taken)?;
        Ok(work.users().insert(&NewUser { id, name, role }).await?)
    }

    async fn open_session(
        &self,
        work: &mut dyn UnitOfWork,
        user_id: UserId,
        origin: RequestOrigin,
    ) -> Result<IssuedRefreshToken, AccountError> {
        let now = self.clock.now();
        let ends_at = self.ends_at(now);
        let session = NewSession {
            id: self.randomness.new_id(),
            user_id,
            user_agent: origin.user_agent,
            network_mark: origin.network.map(|network| self.secrets.mark(&network)),
            authenticated_at: now,
            expires_at: ends_at.min(now + self.session_ttl),
        };
        work.identity().insert_session(&session).await?;
        self.keep_refresh_token(work, self.secrets.mint(), session.id, user_id, ends_at).await
    }

    /// When a session that was opened at `opened_at` is over, however it is used.
    pub(super) fn ends_at(&self, opened_at: DateTime<Utc>) -> DateTime<Utc> {
        opened_at.checked_add_signed(self.session_life).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    async fn keep_refresh_token(
        &self,
        work: &mut dyn UnitOfWork,
        minted: OpaqueSecret,
        session_id: uuid::Uuid,
        user_id: UserId,
        ends_at: DateTime<Utc>,
    ) -> Result<IssuedRefreshToken, AccountError> {
        let token = RefreshToken {
            id: self.randomness.new_id(),
            session_id,
            user_id,
            expires_at: ends_at.min(self.clock.now() + self.session_ttl),
            used_at: None,
            revoked_at: None,
        };
        work.identity().insert_refresh_token(&token, &minted.hash).await?;
        Ok(IssuedRefreshToken { secret: minted.secret, token })
    }

    fn signed_in(&self, user: User, refresh: IssuedRefreshToken, scope: TokenScope) -> Result<SignedIn, AccountError> {
        let email = user.email.clone().ok_or(AccountError::WrongCredentials)?;
        let access_token = self.tokens.issue(user.id, &email, user.role, refresh.token.session_id, scope)?;
        Ok(SignedIn { access_token, refresh_token: refresh.secret, user })
    }
}

/// Whether it may become the password of the account with this address.
pub(super) fn judge_password(password: &str, address: &str) -> Result<(), AccountError> {
    if !new_password_fits(password) {
        return Err(AccountError::PasswordUnfit);
    }
    common_password(password, address).map_or(Ok(()), |why| Err(AccountError::PasswordCommon(why)))
}

/// Locks the checked credentials until the end of the transaction, or fails if they have changed: a password that is
/// changed meanwhile opens no session.
pub(super) async fn keep_credentials(
    work: &mut dyn UnitOfWork,
    checked: &StoredCredentials,
) -> Result<(), AccountError> {
    work.identity().lock_credentials(checked.user_id).await?;
    let stored = work.identity().find_credentials(checked.email.as_str()).await?;
    let is_same =
        |stored: &StoredCredentials| stored.user_id == checked.user_id && stored.password_hash == checked.password_hash;
    stored.as_ref().is_some_and(is_same).then_some(()).ok_or(AccountError::WrongCredentials)
}

struct IssuedRefreshToken {
    secret: String,
    token: RefreshToken,
}

fn name_from(email: &Email) -> String {
    email.as_str().split('@').next().unwrap_or_default().chars().take(100).collect()
}
