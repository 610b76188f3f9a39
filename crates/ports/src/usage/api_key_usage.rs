//! The use of API keys: counters of what calls by the keys of a lineage used in a minute or a month, and of what calls
//! in progress reserve.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::api_keys::ApiKeyId;
use domain::usage::{ApiKeyUsage, WindowKind};
use domain::users::UserId;

use crate::store::{LockPatience, LockResult, StoreError};

/// Identifies a counter of what calls by the API keys of a lineage used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApiKeyWindow {
    pub user_id: UserId,
    /// The first key of the lineage.
    pub api_key_id: ApiKeyId,
    pub kind: WindowKind,
    pub start: DateTime<Utc>,
}

/// The new state of the counter of an API key's window; its row is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiKeyUsageChange {
    pub window: ApiKeyWindow,
    pub usage: ApiKeyUsage,
}

/// What calls used in a window that is not locked; it is added to the row's values. Each window once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiKeyUsageAddition {
    pub window: ApiKeyWindow,
    pub requests: i64,
    pub tokens: i64,
    pub cost: i64,
}

#[async_trait]
pub trait ApiKeyUsageRepository: Send {
    /// Locks the counters of distinct windows, in their order: one statement.
    async fn lock(
        &mut self,
        windows: &[ApiKeyWindow],
        patience: LockPatience,
    ) -> Result<Vec<LockResult<ApiKeyUsage>>, StoreError>;
    /// Creates counters of windows; that of a month begins with what the key's calls have cost in it already.
    async fn open(&mut self, windows: &[ApiKeyWindow]) -> Result<(), StoreError>;
    /// Writes counters that are locked: one statement.
    async fn save(&mut self, changes: &[ApiKeyUsageChange]) -> Result<(), StoreError>;
    /// Adds to counters that are not locked: one statement.
    async fn add(&mut self, additions: &[ApiKeyUsageAddition]) -> Result<(), StoreError>;
}
