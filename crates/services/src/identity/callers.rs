//! Callers: from a token or a key to the user behind it, their role and what they may do.
//!
//! A token's signature is checked by its verifier, a key by its hash. What is to be known of the user and the key come out
//! of the memory of this process wherever it has them (`CallerCache`), and then nobody waits. Users that it does not know
//! are read together (`readings`). Nobody acts by an identity that is banned or deleted, nor by a token that is older than
//! the identity.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use domain::api_keys::{ApiKeyId, KeyHolder};
use domain::identity::{Caller, CallerFacts, Credential, NotAdmitted};
use domain::users::UserId;
use ports::api_keys::{KeyMint, KnownKey};
use ports::clock::Clock;
use ports::identity::{CallerCache, Session, TokenRefused, TokenScope, TokenVerifier, VerifiedIdentity};
use ports::store::{Scope, Store, StoreError};
use thiserror::Error;

use crate::readings::Readings;
use crate::users::IdentityProvider;

/// How many keys' last uses wait at most to be written down; beyond it, a use is not noted.
const NOTED_AT_MOST: usize = 10_000;

/// What a caller showed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Presented<'a> {
    Token(&'a str),
    Key(&'a str),
}

/// The same with a text of its own, for whoever has to wait.
#[derive(Clone, PartialEq, Eq)]
pub enum Kept {
    Token(String),
    Key(String),
}

impl Presented<'_> {
    pub fn keep(self) -> Kept {
        match self {
            Self::Token(token) => Kept::Token(token.to_owned()),
            Self::Key(key) => Kept::Key(key.to_owned()),
        }
    }
}

impl Kept {
    fn as_presented(&self) -> Presented<'_> {
        match self {
            Self::Token(token) => Presented::Token(token),
            Self::Key(key) => Presented::Key(key),
        }
    }
}

/// What can be said of a caller without waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AtOnce {
    Known(Identified),
    /// The identity is certain, what is to be known of it has to be read (`identify_user`).
    FactsMissing(VerifiedIdentity),
    /// All of it has to be looked into (`identify`).
    Unknown,
}

/// Someone whose identity is certain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identified {
    Caller(Caller),
    /// An identity without a profile: all that it can do is to make one.
    Newcomer(UserId),
    /// An administrator who has to set up a second factor first: the own account's routes are all that is open.
    Enrolling(Caller),
}

impl Identified {
    pub const fn user_id(&self) -> UserId {
        match self {
            Self::Caller(caller) | Self::Enrolling(caller) => caller.user_id,
            Self::Newcomer(user_id) => *user_id,
        }
    }
}

#[derive(Debug, Error)]
pub enum NotIdentified {
    /// Unknown, expired, revoked or malformed: the caller is not told which. The text is for the log.
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
    readings: Arc<Readings>,
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
        readings: Arc<Readings>,
        provider: IdentityProvider,
    ) -> Self {
        Self { store, clock, verifier, keys, cache, readings, provider, uses: Mutex::default() }
    }

    /// What is known without waiting for anybody: for most requests, all of it.
    pub fn identify_at_once(&self, presented: Presented<'_>) -> AtOnce {
        match presented {
            Presented::Token(token) => {
                let Some(identity) = self.verifier.verify_at_once(token) else { return AtOnce::Unknown };
                match self.cache.facts(identity.user_id) {
                    // Who is not admitted is refused by `identify`, with the reason.
                    Some(facts) => by_token(&identity, &facts).map_or(AtOnce::Unknown, AtOnce::Known),
                    None => AtOnce::FactsMissing(identity),
                }
            }
            Presented::Key(key) => {
                let known = self.keys.recognise(key).and_then(|hash| self.cache.key(&hash));
                // One that is no longer usable is refused by `identify`, with its reason.
                let admitted = known.filter(|known| self.owner_is_admitted(known.user_id));
                let caller = admitted.and_then(|known| self.by_key(known).ok());
                caller.map_or(AtOnce::Unknown, |caller| AtOnce::Known(Identified::Caller(caller)))
            }
        }
    }

    /// Whether the database would have to be asked about this credential: a key of our form that is not in memory. Tokens,
    /// and keys of another form, are judged without it.
    pub fn asks_the_database(&self, presented: Presented<'_>) -> bool {
        match presented {
            Presented::Token(_) => false,
            Presented::Key(key) => self.keys.recognise(key).is_some_and(|hash| self.cache.key(&hash).is_none()),
        }
    }

    /// Someone whose identity is certain and of whom the rest has to be read. It waits for a fetch that runs elsewhere, so
    /// that whoever stops waiting cuts nothing short.
    pub async fn identify_user(&self, identity: &VerifiedIdentity) -> Result<Identified, NotIdentified> {
        by_token(identity, &self.readings.caller(identity.user_id).await?)
    }

    /// Whether somebody may be acted for now: not where their identity is banned or deleted. Nothing is read where the
    /// identities are ours, which are there or gone with their profile.
    pub async fn admit_subject(&self, user_id: UserId) -> Result<(), NotIdentified> {
        if self.provider == IdentityProvider::BuiltIn {
            return Ok(());
        }
        let facts = self.facts(user_id).await?;
        // Whom nobody knows any more is told by what is asked about them.
        if facts.role.is_some() { Ok(facts.state.admit()?) } else { Ok(()) }
    }

    /// The token once more, for what the caller does not carry. Costs a look-up where the token was checked a moment ago.
    pub async fn read_token(&self, token: &str) -> Result<VerifiedIdentity, NotIdentified> {
        match self.verifier.verify_at_once(token) {
            Some(identity) => Ok(identity),
            None => self.verifier.verify(token).await.map_err(not_verified),
        }
    }

    /// When the holder of a token last proved who they are: by its session, which must be open, where the identities are
    /// ours; else by what the token says. A token that says nothing proves nothing.
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

    /// What time it is, by the clock that tokens are judged by.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    async fn facts(&self, user_id: UserId) -> Result<CallerFacts, StoreError> {
        match self.cache.facts(user_id) {
            Some(facts) => Ok(facts),
            None => self.readings.caller(user_id).await,
        }
    }

    /// Whether the memory knows that the owner of a key may act now. Where the identities are ours, a key goes with its owner.
    fn owner_is_admitted(&self, user_id: UserId) -> bool {
        let knows = || self.cache.facts(user_id).is_some_and(|facts| facts.state.admit().is_ok());
        self.provider == IdentityProvider::BuiltIn || knows()
    }

    pub async fn identify(&self, presented: &Kept) -> Result<Identified, NotIdentified> {
        match presented.as_presented() {
            Presented::Token(token) => self.identify_by_token(token).await,
            Presented::Key(key) => self.identify_by_key(key).await.map(Identified::Caller),
        }
    }

    async fn identify_by_token(&self, token: &str) -> Result<Identified, NotIdentified> {
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
        Ok(Caller { user_id, role, credential })
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

    /// Writes down when keys were last used: one statement for all of them. A job calls it every few seconds and at
    /// the end. What cannot be written stays noted for the next time.
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
fn by_token(identity: &VerifiedIdentity, facts: &CallerFacts) -> Result<Identified, NotIdentified> {
    let user_id = identity.user_id;
    Ok(facts.admit(identity.issued_at)?.map_or(Identified::Newcomer(user_id), |role| {
        let caller = Caller { user_id, role, credential: Credential::Token };
        match identity.scope {
            TokenScope::Everything => Identified::Caller(caller),
            TokenScope::OwnAccount => Identified::Enrolling(caller),
        }
    }))
}
