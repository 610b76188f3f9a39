//! API keys: created, listed, rotated and revoked by their owner; shown once.
//!
//! Promises: every write runs under the lock of the owner's row, so that two requests at once cannot pass the bound on
//! keys, and no key creates another while it is revoked. What a key may do to other keys is decided by its row in the
//! database under that lock, not by the cache. What the caller may grant is checked before a stored answer is looked
//! up.
//!
//! Costs: a write by a key reads that key, for one statement more.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use domain::api_keys::{ApiKey, ApiKeyDraft, ApiKeyId, KeyChanges, KeyHolder, KeyRefused, may_create, rotate};
use domain::identity::{Caller, Credential, Permission, PermissionMissing, PermissionSet};
use domain::users::UserId;
use ports::api_keys::{KeyMint, MintedKey};
use ports::clock::Clock;
use ports::identity::CallerCache;
use ports::store::{Page, Scope, Store, StoreError, UnitOfWork};
use thiserror::Error;

use crate::conflicts::{may_conflict, retry_conflicts};
use crate::idempotency::{IdempotencyService, IdempotentAnswer, KeyConflict};

/// A new key, with its secret, which is known only now.
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
    PermissionMissing(#[from] PermissionMissing),
    #[error(transparent)]
    Key(#[from] KeyConflict),
    #[error(transparent)]
    Store(#[from] StoreError),
}
may_conflict!(ApiKeyError);

/// How many windows of counters one sweep deletes at most.
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
        once: IdempotencyService<CreatedKey>,
    ) -> Result<IdempotentAnswer, ApiKeyError> {
        caller.may(Permission::KeysManage)?;
        may_grant(caller, &draft.permissions, draft.on_behalf)?;
        let owner = caller.user_id;
        retry_conflicts::<_, ApiKeyError, _>(async || {
            let mut work = self.store.begin(Scope::on_order_of(owner)).await?;
            if let Some(replayed) = once.claim(&mut *work).await?? {
                return Ok(replayed);
            }
            work.users().lock(owner).await?.ok_or(ApiKeyError::NotFound)?;
            let now = self.clock.now();
            let existing = work.api_keys().count_usable(owner, now).await?;
            let draft = match used_key(&mut *work, caller).await? {
                Some(maker) => &maker.child(draft, now)?,
                None => draft,
            };
            may_create(draft, caller.role, &caller.grantable(), existing, now)?;
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

    /// Changes a key's name, or the limits of its lineage. They apply from the next call on: at once here, within a
    /// second in every other process.
    pub async fn change(&self, caller: &Caller, id: ApiKeyId, changes: &KeyChanges) -> Result<ApiKey, ApiKeyError> {
        caller.may(Permission::KeysManage)?;
        let owner = caller.user_id;
        let saved = retry_conflicts::<_, ApiKeyError, _>(async || {
            let mut work = self.store.begin(Scope::on_order_of(owner)).await?;
            work.users().lock(owner).await?.ok_or(ApiKeyError::NotFound)?;
            let key = work.api_keys().lock(owner, id).await?.ok_or(ApiKeyError::NotFound)?;
            let limits = key.limits.changed(&changes.limits);
            if limits != key.limits
                && let Some(used) = used_key(&mut *work, caller).await?
            {
                let target = work.api_keys().find_holder(owner, id).await?.ok_or(ApiKeyError::NotFound)?;
                used.may_limit(&target, &limits, self.clock.now())?;
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

    /// Creates a successor of the same lineage, with the same rights; the old key goes on working for `overlap`.
    pub async fn rotate(
        &self,
        caller: &Caller,
        id: ApiKeyId,
        overlap: TimeDelta,
        once: IdempotencyService<CreatedKey>,
    ) -> Result<IdempotentAnswer, ApiKeyError> {
        caller.may(Permission::KeysManage)?;
        let owner = caller.user_id;
        let performed = retry_conflicts::<_, ApiKeyError, _>(async || {
            let mut work = self.store.begin(Scope::on_order_of(owner)).await?;
            // A key with fewer rights must not get more by rotating another key. Rights never change.
            let asked = work.api_keys().find(owner, id).await?.ok_or(ApiKeyError::NotFound)?;
            may_grant(caller, &asked.permissions, asked.on_behalf)?;
            if let Some(replayed) = once.claim(&mut *work).await?? {
                return Ok(replayed);
            }
            work.users().lock(owner).await?.ok_or(ApiKeyError::NotFound)?;
            let old = work.api_keys().lock(owner, id).await?.ok_or(ApiKeyError::NotFound)?;
            let now = self.clock.now();
            if let Some(used) = used_key(&mut *work, caller).await? {
                let target = work.api_keys().find_holder(owner, id).await?.ok_or(ApiKeyError::NotFound)?;
                used.may_rotate(&target, now)?;
            }
            let existing = work.api_keys().count_usable(owner, now).await?;
            let rotation = rotate(&old, overlap, existing, now)?;
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

    /// Ends a key at once, and the keys that were made by it. Revoking a revoked key is no error.
    pub async fn revoke(&self, caller: &Caller, id: ApiKeyId) -> Result<(), ApiKeyError> {
        caller.may(Permission::KeysManage)?;
        self.revoke_of(caller.user_id, caller.user_id, id).await
    }

    /// For operators: ends any user's key.
    pub async fn revoke_any(&self, actor: UserId, owner: UserId, id: ApiKeyId) -> Result<(), ApiKeyError> {
        self.revoke_of(actor, owner, id).await
    }

    async fn revoke_of(&self, actor: UserId, owner: UserId, id: ApiKeyId) -> Result<(), ApiKeyError> {
        retry_conflicts::<_, ApiKeyError, _>(async || {
            let mut work = self.store.begin(Scope::on_order_of(actor)).await?;
            // A key that is created with this one at the same moment either exists before and ends too, or is refused.
            work.users().lock(owner).await?.ok_or(ApiKeyError::NotFound)?;
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

    /// Deletes the windows of counters that are no longer needed; returns how many.
    pub async fn sweep_counters(&self) -> Result<u64, StoreError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let swept = work.api_keys().delete_old_counters(SWEPT_AT_ONCE).await?;
        work.commit().await?;
        Ok(swept)
    }

    /// Checks a presented key against the database: `None` for unknown, expired and revoked alike.
    pub async fn verify(&self, presented: &str) -> Result<Option<ApiKey>, ApiKeyError> {
        let Some(hash) = self.mint.recognise(presented) else { return Ok(None) };
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let holder = work.api_keys().find_by_hash(&hash).await?;
        work.commit().await?;
        let now = self.clock.now();
        Ok(holder.map(|holder| holder.key).filter(|key| key.is_usable(now)))
    }
}

/// A caller can grant only permissions that it has. The right to act for others can be granted by an administrator in
/// person, or by an administrator's key that has it.
fn may_grant(caller: &Caller, permissions: &PermissionSet, on_behalf: bool) -> Result<(), KeyRefused> {
    if let Some(beyond) = caller.grantable().lacks(permissions) {
        return Err(KeyRefused::BeyondCaller(beyond));
    }
    let has_it = match &caller.credential {
        Credential::Token => true,
        Credential::Key { on_behalf, .. } => *on_behalf,
    };
    if !on_behalf || (caller.is_admin() && has_it) { Ok(()) } else { Err(KeyRefused::OnBehalfNeedsAdmin) }
}

/// The key that the caller uses, by its row in the database; `None` where the caller uses no key.
async fn used_key(work: &mut dyn UnitOfWork, caller: &Caller) -> Result<Option<KeyHolder>, ApiKeyError> {
    let Credential::Key { id, .. } = &caller.credential else { return Ok(None) };
    let holder = work.api_keys().find_holder(caller.user_id, ApiKeyId(*id)).await?;
    Ok(Some(holder.ok_or(KeyRefused::CallerEnded)?))
}
