//! API keys: their rows, and the secrets themselves.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::api_keys::{ApiKey, ApiKeyDraft, ApiKeyId, KeyBudgets, KeyHolder, KeyLimits};
use domain::identity::{PermissionSet, Role};
use domain::users::UserId;

use crate::store::{Locked, Page, StoreError};

/// A freshly made secret, with all that is stored of it.
#[derive(Clone, PartialEq, Eq)]
pub struct MintedKey {
    /// The whole key; it is shown once and not stored.
    pub secret: String,
    pub prefix: String,
    pub last_four: String,
    pub hash: String,
}

/// Makes secrets in the product's format, and recognises them.
pub trait KeyMint: Send + Sync {
    fn mint(&self) -> MintedKey;
    /// The hash by which a presented key is found, or `None` if its form or its checksum is wrong:
    /// such a key never reaches the database.
    fn recognise(&self, presented: &str) -> Option<String>;
}

/// What is cached of a key and its owner: enough to identify a caller, and small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownKey {
    pub id: ApiKeyId,
    pub user_id: UserId,
    pub role: Role,
    pub permissions: Arc<PermissionSet>,
    pub on_behalf: bool,
    pub budgets: KeyBudgets,
    pub is_active: bool,
    pub expires_at: Option<DateTime<Utc>>,
}

#[async_trait]
pub trait ApiKeyRepository: Send {
    async fn insert(&mut self, owner: UserId, draft: &ApiKeyDraft, minted: &MintedKey) -> Result<ApiKey, StoreError>;
    async fn find(&mut self, owner: UserId, id: ApiKeyId) -> Result<Option<ApiKey>, StoreError>;
    /// The key with all that decides what it may do to other keys.
    async fn find_holder(&mut self, owner: UserId, id: ApiKeyId) -> Result<Option<KeyHolder>, StoreError>;
    async fn find_by_hash(&mut self, hash: &str) -> Result<Option<KeyHolder>, StoreError>;
    async fn lock(&mut self, owner: UserId, id: ApiKeyId) -> Result<Option<Locked<ApiKey>>, StoreError>;
    /// Newest first, usable or not.
    async fn list(&mut self, owner: UserId, page: &Page<(DateTime<Utc>, ApiKeyId)>) -> Result<Vec<ApiKey>, StoreError>;
    async fn count_usable(&mut self, owner: UserId, now: DateTime<Utc>) -> Result<i64, StoreError>;
    /// Those of `ids` that can be used now.
    async fn list_usable(&mut self, ids: &[ApiKeyId]) -> Result<Vec<ApiKeyId>, StoreError>;
    /// The name is the key's own; the limits are those of its lineage, so they apply to all of its keys.
    async fn save_changes(
        &mut self,
        key: &Locked<ApiKey>,
        name: &str,
        limits: &KeyLimits,
    ) -> Result<ApiKey, StoreError>;
    /// Ends the key, and the keys that it or its predecessors in the lineage made, with all that these made.
    async fn revoke(&mut self, key: &Locked<ApiKey>, at: DateTime<Utc>) -> Result<(), StoreError>;
    /// Records the successor of a rotated key, and when the old one ends.
    async fn save_rotation(
        &mut self,
        key: &Locked<ApiKey>,
        successor: ApiKeyId,
        expires_at: DateTime<Utc>,
    ) -> Result<(), StoreError>;
    /// Writes when keys were last used, in one statement. A later time is never replaced by an earlier one.
    async fn record_use(&mut self, uses: &[(ApiKeyId, DateTime<Utc>)]) -> Result<(), StoreError>;
    /// Deletes what keys used in minutes of more than a day ago and in months of more than 13 months ago, at most
    /// `limit` rows; returns how many.
    async fn delete_old_counters(&mut self, limit: u64) -> Result<u64, StoreError>;
}
