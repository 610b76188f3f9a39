//! Callers: from a token or a key to the user behind it, their role and what they may do.
//!
//! A token's signature is checked by its verifier, a key by its hash. Role and key are remembered for a second, so a
//! busy caller costs the database one short transaction a second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use domain::api_keys::ApiKeyId;
use domain::identity::{Caller, Credential};
use domain::users::UserId;
use ports::api_keys::{KeyHolder, KeyMint};
use ports::clock::Clock;
use ports::identity::{CallerCache, TokenRefused, TokenVerifier};
use ports::store::{Scope, Store, StoreError};
use thiserror::Error;

/// How many keys' last uses wait at most to be written down; beyond it, a use is not noted.
const NOTED_AT_MOST: usize = 10_000;

/// What a caller showed.
#[derive(Clone, PartialEq, Eq)]
pub enum Presented {
    Token(String),
    Key(String),
}

/// Someone whose identity is certain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identified {
    Caller(Caller),
    /// An identity without a profile: all that it can do is to make one.
    Newcomer(UserId),
}

#[derive(Debug, Error)]
pub enum NotIdentified {
    /// Unknown, expired, revoked or malformed: the caller is not told which. The text is for the log.
    #[error("the credential was refused: {0}")]
    Refused(String),
    #[error("the identity provider cannot be asked: {0}")]
    ProviderAway(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub struct CallerService {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    verifier: Arc<dyn TokenVerifier>,
    keys: Arc<dyn KeyMint>,
    cache: Arc<dyn CallerCache>,
    uses: Mutex<HashMap<ApiKeyId, DateTime<Utc>>>,
}

impl CallerService {
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        verifier: Arc<dyn TokenVerifier>,
        keys: Arc<dyn KeyMint>,
        cache: Arc<dyn CallerCache>,
    ) -> Self {
        Self { store, clock, verifier, keys, cache, uses: Mutex::default() }
    }

    pub async fn identify(&self, presented: &Presented) -> Result<Identified, NotIdentified> {
        match presented {
            Presented::Token(token) => self.identify_by_token(token).await,
            Presented::Key(key) => self.identify_by_key(key).await.map(Identified::Caller),
        }
    }

    async fn identify_by_token(&self, token: &str) -> Result<Identified, NotIdentified> {
        let identity = self.verifier.verify(token).await.map_err(|refused| match refused {
            TokenRefused::Invalid(why) => NotIdentified::Refused(why),
            TokenRefused::Unavailable(why) => NotIdentified::ProviderAway(why),
        })?;
        let user_id = identity.user_id;
        let role = match self.cache.role(user_id).await {
            Some(role) => Some(role),
            None => self.read_role(user_id).await?,
        };
        Ok(role.map_or(Identified::Newcomer(user_id), |role| {
            Identified::Caller(Caller { user_id, role, credential: Credential::Token })
        }))
    }

    async fn read_role(&self, user_id: UserId) -> Result<Option<domain::identity::Role>, StoreError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let role = work.users().find_role(user_id).await?;
        work.commit().await?;
        if let Some(role) = role {
            self.cache.remember_role(user_id, role).await;
        }
        Ok(role)
    }

    async fn identify_by_key(&self, presented: &str) -> Result<Caller, NotIdentified> {
        let hash =
            self.keys.recognise(presented).ok_or_else(|| NotIdentified::Refused("the key has not our form".into()))?;
        let holder = match self.cache.key(&hash).await {
            Some(holder) => holder,
            None => self.read_key(&hash).await?,
        };
        let now = self.clock.now();
        if !holder.key.is_usable(now) {
            return Err(NotIdentified::Refused("the key is revoked or expired".into()));
        }
        self.note_use(holder.key.id, now);
        Ok(Caller {
            user_id: holder.key.user_id,
            role: holder.role,
            credential: Credential::Key {
                id: holder.key.id.0,
                permissions: holder.key.permissions,
                on_behalf: holder.key.on_behalf,
            },
        })
    }

    async fn read_key(&self, hash: &str) -> Result<KeyHolder, NotIdentified> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let found = work.api_keys().find_by_hash(hash).await?;
        work.commit().await?;
        let holder = found.ok_or_else(|| NotIdentified::Refused("the key is unknown".into()))?;
        self.cache.remember_key(hash, holder.clone()).await;
        Ok(holder)
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
