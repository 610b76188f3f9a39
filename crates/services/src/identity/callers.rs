//! Callers: from a token or an API key to its user, their role and what they may do.
//!
//! A token's signature is checked by its verifier, a key by its hash. The facts about the user and the key come from
//! the cache of this process where it has them (`CallerCache`), without a wait. Users that are not cached are read
//! together (`cache_loader`). An identity that is banned or deleted is refused, and so is a token that is older than
//! the identity.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use domain::api_keys::{ApiKeyId, KeyHolder};
use domain::identity::{Caller, CallerFacts, Credential, NotAdmitted, TokenLife};
use domain::users::UserId;
use ports::api_keys::{KeyMint, KnownKey};
use ports::clock::Clock;
use ports::identity::{CallerCache, Session, TokenRefused, TokenScope, TokenVerifier, VerifiedIdentity};
use ports::store::{Scope, Store, StoreError};
use thiserror::Error;

use crate::cache_loader::CacheLoader;
use crate::users::IdentityProvider;

/// How many keys' last uses wait at most to be written; beyond it, a use is not noted.
const NOTED_AT_MOST: usize = 10_000;

/// The credential that a caller sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PresentedCredential<'a> {
    Token(&'a str),
    Key(&'a str),
}

/// The same with an owned text, for a caller that has to wait.
#[derive(Clone, PartialEq, Eq)]
pub enum KeptCredential {
    Token(String),
    Key(String),
}

impl PresentedCredential<'_> {
    pub fn keep(self) -> KeptCredential {
        match self {
            Self::Token(token) => KeptCredential::Token(token.to_owned()),
            Self::Key(key) => KeptCredential::Key(key.to_owned()),
        }
    }
}

impl KeptCredential {
    fn as_presented(&self) -> PresentedCredential<'_> {
        match self {
            Self::Token(token) => PresentedCredential::Token(token),
            Self::Key(key) => PresentedCredential::Key(key),
        }
    }
}

/// What is known of a caller without waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AtOnce {
    Known(IdentifiedCaller),
    /// The identity is verified, but its facts have to be read (`identify_user`).
    FactsMissing(VerifiedIdentity),
    /// Everything has to be looked up (`identify`).
    Unknown,
}

/// A caller whose identity is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentifiedCaller {
    Caller(Caller),
    /// An identity without a profile: it can only create one.
    Newcomer(UserId),
    /// An administrator who has to set up a second factor first: only the own account's routes are open.
    Enrolling(Caller),
}

impl IdentifiedCaller {
    pub const fn user_id(&self) -> UserId {
        match self {
            Self::Caller(caller) | Self::Enrolling(caller) => caller.user_id,
            Self::Newcomer(user_id) => *user_id,
        }
    }
}

#[derive(Debug, Error)]
pub enum NotIdentified {
    /// Unknown, expired, revoked or malformed: the caller does not learn which. The text is for the log.
    #[error("the credential was refused: {0}")]
    Refused(String),
    /// The credential is good and its identity is banned.
    #[error("the identity is banned")]
    Banned,
    #[error("the identity provider cannot be asked: {0}")]
    ProviderAway(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<NotAdmitted> for NotIdentified {
    fn from(why: NotAdmitted) -> Self {
        match why {
            NotAdmitted::Banned => Self::Banned,
            NotAdmitted::Deleted | NotAdmitted::OlderThanIdentity => Self::Refused(why.to_string()),
        }
    }
}

pub struct CallerService {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    verifier: Arc<dyn TokenVerifier>,
    keys: Arc<dyn KeyMint>,
    cache: Arc<dyn CallerCache>,
    cache_loader: Arc<CacheLoader>,
    provider: IdentityProvider,
    uses: Mutex<HashMap<ApiKeyId, DateTime<Utc>>>,
}

impl CallerService {
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        verifier: Arc<dyn TokenVerifier>,
        keys: Arc<dyn KeyMint>,
        cache: Arc<dyn CallerCache>,
        cache_loader: Arc<CacheLoader>,
        provider: IdentityProvider,
    ) -> Self {
        Self { store, clock, verifier, keys, cache, cache_loader, provider, uses: Mutex::default() }
    }

    /// What is known without waiting: for most requests, all of it.
    pub fn identify_at_once(&self, presented: PresentedCredential<'_>) -> AtOnce {
        match presented {
            PresentedCredential::Token(token) => {
                let Some(identity) = self.verifier.verify_at_once(token) else { return AtOnce::Unknown };
                match self.cache.facts(identity.user_id) {
                    // A caller that is not admitted is refused by `identify`, with the reason.
                    Some(facts) => by_token(&identity, &facts).map_or(AtOnce::Unknown, AtOnce::Known),
                    None => AtOnce::FactsMissing(identity),
                }
            }
            PresentedCredential::Key(key) => {
                let known = self.keys.recognise(key).and_then(|hash| self.cache.key(&hash));
                // One that is no longer usable is refused by `identify`, with its reason.
                let admitted = known.filter(|known| self.owner_is_admitted(known.user_id));
                let caller = admitted.and_then(|known| self.by_key(known).ok());
                caller.map_or(AtOnce::Unknown, |caller| AtOnce::Known(IdentifiedCaller::Caller(caller)))
            }
        }
    }

    /// Whether the database would have to be asked about this credential: a key of our form that is not cached. Tokens,
    /// and keys of another form, are checked without it.
    pub fn asks_the_database(&self, presented: PresentedCredential<'_>) -> bool {
        match presented {
            PresentedCredential::Token(_) => false,
            PresentedCredential::Key(key) => {
                self.keys.recognise(key).is_some_and(|hash| self.cache.key(&hash).is_none())
            }
        }
    }

    /// For a verified identity whose facts have to be read. It waits for a fetch in another task, so a caller that
    /// stops waiting interrupts nothing.
    pub async fn identify_user(&self, identity: &VerifiedIdentity) -> Result<IdentifiedCaller, NotIdentified> {
        by_token(identity, &self.cache_loader.caller(identity.user_id).await?)
    }

    /// Whether requests may act for this user now: not where the identity is banned or deleted. Nothing is read for
    /// built-in identities, which exist as long as their profile.
    pub async fn admit_subject(&self, user_id: UserId) -> Result<(), NotIdentified> {
        if self.provider == IdentityProvider::BuiltIn {
            return Ok(());
        }
        let facts = self.facts(user_id).await?;
        // That a user is unknown is reported by the operation itself.
        if facts.role.is_some() { Ok(facts.state.admit()?) } else { Ok(()) }
    }

    /// Verifies the token again, for what `Caller` does not carry. Costs a look-up where the token was verified
    /// recently.
    pub async fn read_token(&self, token: &str) -> Result<VerifiedIdentity, NotIdentified> {
        match self.verifier.verify_at_once(token) {
            Some(identity) => Ok(identity),
            None => self.verifier.verify(token).await.map_err(not_verified),
        }
    }

    /// When the holder of a token last proved their identity: for built-in identities by its session, which must be
    /// open; else by what the token says. A token that says nothing proves nothing.
    pub async fn authenticated_at(&self, identity: &VerifiedIdentity) -> Result<Option<DateTime<Utc>>, StoreError> {
        if self.provider != IdentityProvider::BuiltIn {
            return Ok(identity.authenticated_at.or(identity.issued_at));
        }
        let Some(session_id) = identity.session_id else { return Ok(None) };
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let session = work.identity().find_session(session_id).await?;
        work.commit().await?;
        let is_open = |session: &Session| session.user_id == identity.user_id && session.revoked_at.is_none();
        Ok(session.filter(is_open).map(|session| session.authenticated_at))
    }

    /// The current time, by the clock that tokens are checked with.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    async fn facts(&self, user_id: UserId) -> Result<CallerFacts, StoreError> {
        match self.cache.facts(user_id) {
            Some(facts) => Ok(facts),
            None => self.cache_loader.caller(user_id).await,
        }
    }

    /// Whether the cache shows that the owner of a key may act now. A key of a built-in identity is deleted with its
    /// owner.
    fn owner_is_admitted(&self, user_id: UserId) -> bool {
        let knows = || self.cache.facts(user_id).is_some_and(|facts| facts.state.admit().is_ok());
        self.provider == IdentityProvider::BuiltIn || knows()
    }

    pub async fn identify(&self, presented: &KeptCredential) -> Result<IdentifiedCaller, NotIdentified> {
        match presented.as_presented() {
            PresentedCredential::Token(token) => self.identify_by_token(token).await,
            PresentedCredential::Key(key) => self.identify_by_key(key).await.map(IdentifiedCaller::Caller),
        }
    }

    async fn identify_by_token(&self, token: &str) -> Result<IdentifiedCaller, NotIdentified> {
        let identity = self.verifier.verify(token).await.map_err(not_verified)?;
        by_token(&identity, &self.facts(identity.user_id).await?)
    }

    async fn identify_by_key(&self, presented: &str) -> Result<Caller, NotIdentified> {
        let hash =
            self.keys.recognise(presented).ok_or_else(|| NotIdentified::Refused("the key has not our form".into()))?;
        let known = match self.cache.key(&hash) {
            Some(known) => known,
            None => self.read_key(&hash).await?,
        };
        if self.provider != IdentityProvider::BuiltIn {
            self.facts(known.user_id).await?.state.admit()?;
        }
        self.by_key(known)
    }

    fn by_key(&self, known: KnownKey) -> Result<Caller, NotIdentified> {
        let now = self.clock.now();
        if !known.is_active || known.expires_at.is_some_and(|expires_at| expires_at <= now) {
            return Err(NotIdentified::Refused("the key is revoked or expired".into()));
        }
        self.note_use(known.id, now);
        let KnownKey { id, user_id, role, permissions, on_behalf, budgets, expires_at, .. } = known;
        let permissions = Arc::unwrap_or_clone(permissions);
        let credential = Credential::Key { id: id.0, permissions, on_behalf, budgets, expires_at };
        Ok(Caller { user_id, role, credential, token: None })
    }

    async fn read_key(&self, hash: &str) -> Result<KnownKey, NotIdentified> {
        let ticket = self.cache.key_ticket();
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let found = work.api_keys().find_by_hash(hash).await?;
        work.commit().await?;
        let KeyHolder { key, role, budgets } =
            found.ok_or_else(|| NotIdentified::Refused("the key is unknown".into()))?;
        let known = KnownKey {
            id: key.id,
            user_id: key.user_id,
            role,
            permissions: Arc::new(key.permissions),
            on_behalf: key.on_behalf,
            budgets,
            is_active: key.is_active,
            expires_at: key.expires_at,
        };
        self.cache.remember_key(hash, known.clone(), &ticket);
        Ok(known)
    }

    fn note_use(&self, id: ApiKeyId, at: DateTime<Utc>) {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        if uses.len() < NOTED_AT_MOST || uses.contains_key(&id) {
            uses.insert(id, at);
        }
    }

    /// Writes when keys were last used: one statement for all of them. A job calls it every few seconds and at the end.
    /// What cannot be written stays noted for the next time.
    pub async fn flush_uses(&self) -> Result<usize, StoreError> {
        let uses: Vec<_> =
            std::mem::take(&mut *self.uses.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect();
        if uses.is_empty() {
            return Ok(0);
        }
        let written = self.write_uses(&uses).await;
        if written.is_err() {
            let mut noted = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
            for (id, at) in &uses {
                noted.entry(*id).or_insert(*at);
            }
        }
        written.map(|()| uses.len())
    }

    async fn write_uses(&self, uses: &[(ApiKeyId, DateTime<Utc>)]) -> Result<(), StoreError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        work.api_keys().record_use(uses).await?;
        work.commit().await
    }
}

fn not_verified(refused: TokenRefused) -> NotIdentified {
    match refused {
        TokenRefused::Invalid(why) => NotIdentified::Refused(why),
        TokenRefused::Unavailable(why) => NotIdentified::ProviderAway(why),
    }
}

/// Without a role there is no profile yet.
fn by_token(identity: &VerifiedIdentity, facts: &CallerFacts) -> Result<IdentifiedCaller, NotIdentified> {
    let user_id = identity.user_id;
    Ok(facts.admit(identity.issued_at)?.map_or(IdentifiedCaller::Newcomer(user_id), |role| {
        let token = TokenLife { session_id: identity.session_id, expires_at: identity.expires_at };
        let caller = Caller { user_id, role, credential: Credential::Token, token: Some(token) };
        match identity.scope {
            TokenScope::Everything => IdentifiedCaller::Caller(caller),
            TokenScope::OwnAccount => IdentifiedCaller::Enrolling(caller),
        }
    }))
}
