//! Identity: the built-in accounts, their sessions, and the tokens that identify a caller.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::identity::{CallerFacts, Email, Role, StoredEmail};
use domain::users::UserId;
use thiserror::Error;
use uuid::Uuid;

use crate::api_keys::KnownKey;
use crate::changes::CacheTicket;
use crate::store::{Page, StoreError};

/// The credentials that a log-in is checked against.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredCredentials {
    pub user_id: UserId,
    pub email: StoredEmail,
    /// The argon2id hash in PHC form.
    pub password_hash: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSession {
    pub id: Uuid,
    pub user_id: UserId,
    pub user_agent: Option<String>,
    /// Identifies the network that it was opened from (`RefreshTokenMint::mark`).
    pub network_mark: Option<Vec<u8>>,
    pub authenticated_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
}

/// A session as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: Uuid,
    pub user_id: UserId,
    pub user_agent: Option<String>,
    pub created_at: DateTime<Utc>,
    /// When it was opened or its tokens were refreshed last.
    pub last_used_at: DateTime<Utc>,
    /// When its holder last proved their identity: by the log-in, or by the password again. A refresh does not count.
    pub authenticated_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    pub revoked_at: Option<DateTime<Utc>>,
}

/// A second factor as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecondFactor {
    pub sealed_secret: Vec<u8>,
    /// `None` until a code confirmed it: until then no log-in asks for it.
    pub confirmed_at: Option<DateTime<Utc>>,
    /// The last time step whose code was used.
    pub last_step: Option<i64>,
}

/// A position in the list of sessions.
pub type LogInSessionPosition = (DateTime<Utc>, Uuid);

/// A refresh token as it is stored: by hash. Its session is its token family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshToken {
    pub id: Uuid,
    pub session_id: Uuid,
    pub user_id: UserId,
    pub expires_at: DateTime<Utc>,
    /// When it was exchanged. An exchanged token that is sent again is a stolen one.
    pub used_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
}

/// Hash of an opaque secret, for the unique index.
pub type SecretHash = Vec<u8>;

#[async_trait]
pub trait IdentityRepository: Send {
    /// Creates a built-in identity. `Constraint` on the e-mail's unique index where it is taken, and where the id
    /// belonged to a deleted account: no id is given twice.
    async fn register(&mut self, id: UserId, email: &Email, password_hash: &str) -> Result<(), StoreError>;
    /// By the address as it is stored, whatever the case.
    async fn find_credentials(&mut self, spelling: &str) -> Result<Option<StoredCredentials>, StoreError>;
    async fn save_password(&mut self, user_id: UserId, password_hash: &str) -> Result<(), StoreError>;
    /// Until the end of the transaction, no other log-in to this account and no change of its credentials can run.
    async fn lock_credentials(&mut self, user_id: UserId) -> Result<(), StoreError>;
    /// Deletes the identity of a built-in account.
    async fn delete(&mut self, user_id: UserId) -> Result<(), StoreError>;
    /// Whether the identity provider knows this id.
    async fn exists(&mut self, user_id: UserId) -> Result<bool, StoreError>;
    async fn find_by_email(&mut self, email: &Email) -> Result<Option<UserId>, StoreError>;
    async fn find_email(&mut self, user_id: UserId) -> Result<Option<StoredEmail>, StoreError>;
    /// Whether the identity provider confirms that this identity, and no other, owns the address. Never so for a
    /// built-in identity.
    async fn owns_address(&mut self, user_id: UserId, email: &Email) -> Result<bool, StoreError>;

    async fn find_second_factor(&mut self, user_id: UserId) -> Result<Option<SecondFactor>, StoreError>;
    /// Stores a secret that no code has confirmed yet, in place of another unconfirmed one.
    async fn offer_second_factor(&mut self, user_id: UserId, sealed: &[u8]) -> Result<(), StoreError>;
    /// From now on log-ins ask for it.
    async fn confirm_second_factor(
        &mut self,
        user_id: UserId,
        at: DateTime<Utc>,
        step: i64,
        recovery_marks: &[String],
    ) -> Result<(), StoreError>;
    async fn save_totp_step(&mut self, user_id: UserId, step: i64) -> Result<(), StoreError>;
    /// Deletes a recovery code, if it exists.
    async fn use_recovery_code(&mut self, user_id: UserId, mark: &str) -> Result<bool, StoreError>;
    async fn delete_second_factor(&mut self, user_id: UserId) -> Result<(), StoreError>;

    async fn insert_session(&mut self, session: &NewSession) -> Result<(), StoreError>;
    async fn find_session(&mut self, id: Uuid) -> Result<Option<Session>, StoreError>;
    /// Those of a user that are neither revoked nor expired and were opened after `opened_after`, newest first.
    async fn list_sessions(
        &mut self,
        user_id: UserId,
        now: DateTime<Utc>,
        opened_after: DateTime<Utc>,
        page: &Page<LogInSessionPosition>,
    ) -> Result<Vec<Session>, StoreError>;
    async fn save_authenticated_at(&mut self, session_id: Uuid, at: DateTime<Utc>) -> Result<(), StoreError>;
    /// Whether a session of the account with this address was opened from the network, and is still stored.
    async fn knows_network(&mut self, spelling: &str, network_mark: &[u8]) -> Result<bool, StoreError>;
    /// Ends all sessions of a user but this one, and their refresh tokens; returns how many sessions.
    async fn revoke_other_sessions(
        &mut self,
        user_id: UserId,
        kept: Option<Uuid>,
        at: DateTime<Utc>,
    ) -> Result<u64, StoreError>;
    async fn insert_refresh_token(&mut self, token: &RefreshToken, hash: &SecretHash) -> Result<(), StoreError>;
    /// FOR UPDATE: two exchanges of one token wait for each other, and the second sees the first.
    async fn lock_refresh_token(&mut self, hash: &SecretHash) -> Result<Option<RefreshToken>, StoreError>;
    /// The same without waiting for a lock.
    async fn find_refresh_token(&mut self, hash: &SecretHash) -> Result<Option<RefreshToken>, StoreError>;
    /// Marks a token as exchanged for another.
    async fn replace_refresh_token(&mut self, id: Uuid, successor: Uuid, at: DateTime<Utc>) -> Result<(), StoreError>;
    /// Whether each holder may go on with running work: the profile exists, its identity is active, and the session,
    /// where one of ours is named, has neither ended nor expired. In the order of `holders`.
    async fn list_live(&mut self, holders: &[(UserId, Option<Uuid>)]) -> Result<Vec<bool>, StoreError>;
    /// Ends a session and all of its refresh tokens.
    async fn revoke_session(&mut self, session_id: Uuid, at: DateTime<Utc>) -> Result<(), StoreError>;
    /// Records that this key signs tokens, so that operators see which keys were in use and since when.
    async fn record_signing_key(&mut self, key_id: &str, algorithm: &str) -> Result<(), StoreError>;
    /// The signing key that is stored in the database: `candidate`, if none was stored before. Every process gets the
    /// same.
    async fn keep_signing_key(&mut self, candidate: &[u8]) -> Result<Vec<u8>, StoreError>;
    /// Deletes sessions that were revoked before `before`, or whose last refresh token expired before it (each refresh
    /// lengthens a session, so its own `expires_at` is not enough); at most `limit`; returns how many.
    async fn delete_ended_sessions(&mut self, before: DateTime<Utc>, limit: u64) -> Result<u64, StoreError>;
}

/// The identity that a token belongs to. It may have no profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedIdentity {
    pub user_id: UserId,
    /// When the token was issued, where it says so.
    pub issued_at: Option<DateTime<Utc>>,
    /// When the issuer last authenticated the user, where the token says so.
    pub authenticated_at: Option<DateTime<Utc>>,
    /// The session that the token was issued for, where it is one of ours.
    pub session_id: Option<Uuid>,
    pub scope: TokenScope,
    pub expires_at: DateTime<Utc>,
}

/// The cache of callers, so that not every request reads them from the database. No method waits. A returned value is
/// at most a second behind the database: young, or confirmed as fresh by a feed of changes (`ChangeListener`). No feed
/// covers identities that another service keeps.
pub trait CallerCache: Send + Sync {
    fn facts(&self, user_id: UserId) -> Option<CallerFacts>;
    /// To be taken before the facts are read.
    fn facts_ticket(&self, user_id: UserId) -> CacheTicket;
    fn remember_facts(&self, user_id: UserId, facts: CallerFacts, ticket: &CacheTicket);
    fn key(&self, hash: &str) -> Option<KnownKey>;
    /// To be taken before the key is read, when its owner is not known yet.
    fn key_ticket(&self) -> CacheTicket;
    fn remember_key(&self, hash: &str, key: KnownKey, ticket: &CacheTicket);
    /// Removes everything about a user and their keys: a service that changes any of it calls this after the commit.
    fn forget(&self, user_id: UserId);
}

/// Why a token was not accepted. The caller learns only that it was not.
#[derive(Debug, Error)]
pub enum TokenRefused {
    #[error("the token is not valid: {0}")]
    Invalid(String),
    /// The issuer's keys could not be fetched, so the token cannot be checked.
    #[error("the identity provider's keys are out of reach: {0}")]
    Unavailable(String),
}

#[async_trait]
pub trait TokenVerifier: Send + Sync {
    async fn verify(&self, token: &str) -> Result<VerifiedIdentity, TokenRefused>;
    /// The same without waiting. `None` means that only `verify` can decide.
    fn verify_at_once(&self, token: &str) -> Option<VerifiedIdentity>;
}

#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken {
    pub token: String,
    pub expires_in_seconds: u64,
}

/// What an access token may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenScope {
    Everything,
    /// The own account's routes: an administrator has to set up a second factor first.
    OwnAccount,
}

/// Makes access tokens of the built-in identity.
pub trait TokenIssuer: Send + Sync {
    fn issue(
        &self,
        user_id: UserId,
        email: &StoredEmail,
        role: Role,
        session_id: Uuid,
        scope: TokenScope,
    ) -> Result<AccessToken, SecretError>;
    /// The id of the signing key, and its algorithm.
    fn key(&self) -> (String, &'static str);
}

/// The secret of a second factor: as it is shown once, in base32, and as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct NewTotpSecret {
    pub secret: String,
    pub sealed: Vec<u8>,
}

/// Makes the secrets of second factors and checks codes by them.
pub trait TotpSecrets: Send + Sync {
    fn mint(&self, user_id: UserId) -> Result<NewTotpSecret, SecretError>;
    /// The first of these steps that the code matches.
    fn matching_step(
        &self,
        user_id: UserId,
        sealed: &[u8],
        code: &str,
        steps: &[i64],
    ) -> Result<Option<i64>, SecretError>;
    fn mint_recovery_codes(&self) -> Vec<String>;
}

#[derive(Debug, Error)]
#[error("a secret could not be made or checked: {0}")]
pub struct SecretError(pub String);

/// Hashes passwords, a bounded number at once, since one hash costs as much as a thousand requests.
#[async_trait]
pub trait PasswordHasher: Send + Sync {
    async fn hash(&self, password: String) -> Result<String, SecretError>;
    /// Compares with a stored hash. Without one it does the same work and returns false, so that the time reveals
    /// nothing.
    async fn verify(&self, password: String, stored: Option<String>) -> Result<bool, SecretError>;
}

/// An opaque secret (a refresh token), and the hash by which it is found again.
#[derive(Clone, PartialEq, Eq)]
pub struct OpaqueSecret {
    pub secret: String,
    pub hash: SecretHash,
}

pub trait SecretMint: Send + Sync {
    fn mint(&self) -> OpaqueSecret;
    fn hash(&self, secret: &str) -> SecretHash;
}

/// Makes refresh tokens. The successor of a token is derived from the token, so only its holder can get it: two
/// exchanges of one token at once get one successor, and none has to be stored.
pub trait RefreshTokenMint: SecretMint {
    fn successor(&self, token: &str) -> OpaqueSecret;
    /// A keyed hash, by which a text is recognised and from which it cannot be read.
    fn mark(&self, text: &str) -> Vec<u8>;
}
