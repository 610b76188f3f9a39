//! API keys: made, listed, rotated and revoked by their owner; shown once.
//!
//! Every write runs under the lock of the owner's row, so that two requests at once cannot pass the bound on keys.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use domain::api_keys::{ApiKey, ApiKeyDraft, ApiKeyId, KeyChanges, KeyRefused, may_create, may_limit, rotate};
use domain::identity::{Caller, Credential, Forbidden, Permission};
use domain::users::UserId;
use ports::api_keys::{KeyMint, MintedKey};
use ports::clock::Clock;
use ports::identity::CallerCache;
use ports::store::{Page, Scope, Store, StoreError};
use thiserror::Error;

use crate::conflicts::{may_conflict, retry_conflicts};
use crate::idempotency::{KeyConflict, Once, Performed};

/// A key at the one moment when its secret is known.
#[derive(Clone, PartialEq, Eq)]
pub struct CreatedKey {
    pub key: ApiKey,
    pub secret: String,
}

#[derive(Debug, Error)]
pub enum ApiKeyError {
    #[error("there is no such key")]
    NotFound,
    #[error(transparent)]
    Refused(#[from] KeyRefused),
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    #[error(transparent)]
    Key(#[from] KeyConflict),
    #[error(transparent)]
    Store(#[from] StoreError),
}
may_conflict!(ApiKeyError);

/// How many windows of counters one sweep removes at most.
const SWEPT_AT_ONCE: u64 = 1_000;

pub struct ApiKeyService {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub mint: Arc<dyn KeyMint>,
    pub cache: Arc<dyn CallerCache>,
}

impl ApiKeyService {
    pub async fn create(
        &self,
        caller: &Caller,
        draft: &ApiKeyDraft,
        once: Once<CreatedKey>,
    ) -> Result<Performed, ApiKeyError> {
        caller.may(Permission::KeysManage)?;
        let owner = caller.user_id;
        retry_conflicts::<_, ApiKeyError, _>(async || {
            let mut work = self.store.begin(Scope::on_order_of(owner)).await?;
            if let Some(replayed) = once.claim(&mut *work).await?? {
                return Ok(replayed);
            }
            work.users().lock(owner).await?.ok_or(ApiKeyError::NotFound)?;
            let now = self.clock.now();
            let existing = work.api_keys().count_usable(owner, now).await?;
            may_create(draft, caller.role, &caller.grantable(), existing, now)?;
            may_pass_on_behalf(caller, draft.on_behalf)?;
            may_limit(&caller.credential, &draft.limits)?;
            let minted = self.mint.mint();
            let key = work.api_keys().insert(owner, draft, &minted).await?;
            let performed = once.record(&mut *work, &CreatedKey { key, secret: minted.secret }).await?;
            work.commit().await?;
            Ok(performed)
        })
        .await
    }

    pub async fn list(
        &self,
        caller: &Caller,
        after: Option<(DateTime<Utc>, ApiKeyId)>,
        limit: u64,
    ) -> Result<Vec<ApiKey>, ApiKeyError> {
        caller.may(Permission::KeysManage)?;
        let mut work = self.store.begin(Scope::on_order_of(caller.user_id)).await?;
        let keys = work.api_keys().list(caller.user_id, &Page { after, limit }).await?;
        work.commit().await?;
        Ok(keys)
    }

    pub async fn find(&self, caller: &Caller, id: ApiKeyId) -> Result<ApiKey, ApiKeyError> {
        caller.may(Permission::KeysManage)?;
        let mut work = self.store.begin(Scope::on_order_of(caller.user_id)).await?;
        let key = work.api_keys().find(caller.user_id, id).await?.ok_or(ApiKeyError::NotFound)?;
        work.commit().await?;
        Ok(key)
    }

    /// Gives a key another name or other limits. Whoever uses it is held to them from the next call on: at once here,
    /// within a second on every other process.
    pub async fn change(&self, caller: &Caller, id: ApiKeyId, changes: &KeyChanges) -> Result<ApiKey, ApiKeyError> {
        caller.may(Permission::KeysManage)?;
        let owner = caller.user_id;
        let saved = retry_conflicts::<_, ApiKeyError, _>(async || {
            let mut work = self.store.begin(Scope::on_order_of(owner)).await?;
            let key = work.api_keys().lock(owner, id).await?.ok_or(ApiKeyError::NotFound)?;
            let limits = key.limits.changed(&changes.limits);
            if limits != key.limits {
                may_limit(&caller.credential, &limits)?;
            }
            let name = changes.name.as_deref().unwrap_or(&key.name);
            let saved = work.api_keys().save_changes(&key, name, &limits).await?;
            work.commit().await?;
            Ok(saved)
        })
        .await?;
        self.cache.forget(owner);
        Ok(saved)
    }

    /// Makes a successor with the same rights; the old key goes on working for `overlap`.
    pub async fn rotate(
        &self,
        caller: &Caller,
        id: ApiKeyId,
        overlap: TimeDelta,
        once: Once<CreatedKey>,
    ) -> Result<Performed, ApiKeyError> {
        caller.may(Permission::KeysManage)?;
        let owner = caller.user_id;
        let performed = retry_conflicts::<_, ApiKeyError, _>(async || {
            let mut work = self.store.begin(Scope::on_order_of(owner)).await?;
            if let Some(replayed) = once.claim(&mut *work).await?? {
                return Ok(replayed);
            }
            work.users().lock(owner).await?.ok_or(ApiKeyError::NotFound)?;
            let old = work.api_keys().lock(owner, id).await?.ok_or(ApiKeyError::NotFound)?;
            // A key with fewer rights must not become one with more by rotating it.
            if let Some(beyond) = caller.grantable().lacks(&old.permissions) {
                return Err(KeyRefused::BeyondCaller(beyond).into());
            }
            may_pass_on_behalf(caller, old.on_behalf)?;
            may_limit(&caller.credential, &old.limits)?;
            let rotation = rotate(&old, overlap, self.clock.now())?;
            let minted: MintedKey = self.mint.mint();
            let key = work.api_keys().insert(owner, &rotation.successor, &minted).await?;
            work.api_keys().save_rotation(&old, key.id, rotation.old_expires_at).await?;
            let performed = once.record(&mut *work, &CreatedKey { key, secret: minted.secret }).await?;
            work.commit().await?;
            Ok(performed)
        })
        .await?;
        self.cache.forget(owner);
        Ok(performed)
    }

    /// Ends a key at once. Revoking a revoked key is no error: what was asked for is the case.
    pub async fn revoke(&self, caller: &Caller, id: ApiKeyId) -> Result<(), ApiKeyError> {
        caller.may(Permission::KeysManage)?;
        self.revoke_of(caller.user_id, caller.user_id, id).await
    }

    /// For operators: ends anybody's key.
    pub async fn revoke_any(&self, actor: UserId, owner: UserId, id: ApiKeyId) -> Result<(), ApiKeyError> {
        self.revoke_of(actor, owner, id).await
    }

    async fn revoke_of(&self, actor: UserId, owner: UserId, id: ApiKeyId) -> Result<(), ApiKeyError> {
        retry_conflicts::<_, ApiKeyError, _>(async || {
            let mut work = self.store.begin(Scope::on_order_of(actor)).await?;
            let key = work.api_keys().lock(owner, id).await?.ok_or(ApiKeyError::NotFound)?;
            if key.revoked_at.is_none() {
                work.api_keys().revoke(&key, self.clock.now()).await?;
            }
            Ok(work.commit().await?)
        })
        .await?;
        self.cache.forget(owner);
        Ok(())
    }

    /// Removes the windows of counters that nobody asks for any more; says how many.
    pub async fn sweep_counters(&self) -> Result<u64, StoreError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let swept = work.api_keys().delete_old_counters(SWEPT_AT_ONCE).await?;
        work.commit().await?;
        Ok(swept)
    }

    /// What a presented key is worth, asked of the database itself: `None` for unknown, expired and revoked alike.
    pub async fn verify(&self, presented: &str) -> Result<Option<ApiKey>, ApiKeyError> {
        let Some(hash) = self.mint.recognise(presented) else { return Ok(None) };
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let holder = work.api_keys().find_by_hash(&hash).await?;
        work.commit().await?;
        let now = self.clock.now();
        Ok(holder.map(|holder| holder.key).filter(|key| key.is_usable(now)))
    }
}

/// Acting for others is passed on by an administrator in person, or by a key of theirs that may do so itself.
fn may_pass_on_behalf(caller: &Caller, on_behalf: bool) -> Result<(), KeyRefused> {
    let has_it = match &caller.credential {
        Credential::Token => true,
        Credential::Key { on_behalf, .. } => *on_behalf,
    };
    if !on_behalf || (caller.is_admin() && has_it) { Ok(()) } else { Err(KeyRefused::OnBehalfNeedsAdmin) }
}
