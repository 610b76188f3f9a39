//! Changes: how caches learn of them, and how a cache tells what was read before a change from what was read after it.

use std::time::Duration;

use domain::changes::Change;

/// A cache of data that the database can change. A service that changes something calls it after the commit, and a feed
/// passes it the changes of all processes.
pub trait ChangeListener: Send + Sync {
    /// Something changed: what was read of it before this call is stale.
    fn invalidate(&self, change: Change);
    /// Every change that was committed before `moment`, by `Clock::elapsed`, has been passed to `invalidate`.
    fn confirm_fresh(&self, moment: Duration);
    /// Changes may have been missed: everything that was read before this call is stale.
    fn invalidate_all(&self);
    /// Whether a feed has confirmed the last second.
    fn is_fed(&self) -> bool;
}

/// Taken before the database is read, and passed in when the answer is cached, so that an answer that was read before a
/// change is never fresh. The numbers mean something only to the cache that gave them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheTicket {
    pub facts: u64,
    pub counts: u64,
    /// By `Clock::elapsed`.
    pub asked_at: Duration,
}
