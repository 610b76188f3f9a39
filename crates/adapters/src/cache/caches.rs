//! All caches of this process in one place, so that one change invalidates all of them.
//!
//! Limits: 100,000 callers, 20,000 API keys and 100,000 entitlements; some 40 MiB when full.

use std::sync::Arc;
use std::time::Duration;

use domain::changes::Change;
use domain::users::UserId;
use ports::changes::ChangeListener;
use ports::clock::Clock;
use ports::entitlements::Meter;

use super::callers::{CallerEntry, KeyEntry};
use super::clock_cache::ClockCache;
use super::entitlements::{EntitlementEntry, Names};
use super::versions::Versions;

const CALLERS_MAX: usize = 100_000;
const KEYS_MAX: usize = 20_000;
const ENTITLEMENTS_MAX: usize = 100_000;

pub struct ProcessCache {
    pub(super) versions: Versions,
    pub(super) callers: ClockCache<UserId, CallerEntry>,
    /// Whether another service manages the identities, whose changes no feed reports.
    pub(super) identities_elsewhere: bool,
    pub(super) keys: ClockCache<Box<str>, KeyEntry>,
    pub(super) standings: ClockCache<Meter, EntitlementEntry>,
    pub(super) names: Names,
}

impl ProcessCache {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            versions: Versions::new(clock),
            callers: ClockCache::new(CALLERS_MAX),
            identities_elsewhere: false,
            keys: ClockCache::new(KEYS_MAX),
            standings: ClockCache::new(ENTITLEMENTS_MAX),
            names: Names::default(),
        }
    }

    /// Callers are fresh for a second after they were read, whatever the feed confirms: each active caller is read once
    /// a second, so that a ban takes effect within one second.
    pub fn for_identities_elsewhere(clock: Arc<dyn Clock>) -> Self {
        Self { identities_elsewhere: true, ..Self::new(clock) }
    }
}

impl ChangeListener for ProcessCache {
    fn invalidate(&self, change: Change) {
        self.versions.invalidate(change);
    }

    fn confirm_fresh(&self, moment: Duration) {
        self.versions.confirm_fresh(moment);
    }

    fn invalidate_all(&self) {
        self.versions.invalidate_all();
    }

    fn is_fed(&self) -> bool {
        self.versions.is_fed()
    }
}
