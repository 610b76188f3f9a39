//! What is remembered of callers for a second: roles by user, keys by hash. Bounded, in memory, no locks across awaits.

use std::time::Duration;

use async_trait::async_trait;
use domain::identity::Role;
use domain::users::UserId;
use moka::future::Cache;
use ports::api_keys::KeyHolder;
use ports::identity::CallerCache;

/// How long a revocation may go unnoticed on another process.
const REMEMBERED_FOR: Duration = Duration::from_secs(1);

/// How many callers are remembered at once; beyond it the least used are forgotten.
const REMEMBERED_AT_MOST: u64 = 100_000;

pub struct RecentCallers {
    roles: Cache<UserId, Role>,
    keys: Cache<String, KeyHolder>,
}

impl RecentCallers {
    pub fn new() -> Self {
        let keys = Cache::builder()
            .max_capacity(REMEMBERED_AT_MOST)
            .time_to_live(REMEMBERED_FOR)
            .support_invalidation_closures();
        Self {
            roles: Cache::builder().max_capacity(REMEMBERED_AT_MOST).time_to_live(REMEMBERED_FOR).build(),
            keys: keys.build(),
        }
    }
}

impl Default for RecentCallers {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl CallerCache for RecentCallers {
    async fn role(&self, user_id: UserId) -> Option<Role> {
        self.roles.get(&user_id).await
    }

    async fn remember_role(&self, user_id: UserId, role: Role) {
        self.roles.insert(user_id, role).await;
    }

    async fn key(&self, hash: &str) -> Option<KeyHolder> {
        self.keys.get(hash).await
    }

    async fn remember_key(&self, hash: &str, holder: KeyHolder) {
        self.keys.insert(hash.to_owned(), holder).await;
    }

    async fn forget(&self, user_id: UserId) {
        self.roles.invalidate(&user_id).await;
        // Fails only where invalidation by closure was not asked for when the cache was built; it was.
        let forgotten = self.keys.invalidate_entries_if(move |_, holder| holder.key.user_id == user_id);
        debug_assert!(forgotten.is_ok(), "the cache supports invalidation by closure");
    }
}
