//! All that this process remembers of users, in one place, so that a change is heard by all of it.
//!
//! Bounds: 100,000 callers, 20,000 keys and 100,000 entitlements, and a tenth more; some 45 MiB when all of it is full.

use std::time::Instant;

use domain::changes::Change;
use domain::users::UserId;
use ports::changes::ChangeListener;
use ports::entitlements::Meter;

use super::callers::{CallerEntry, KeyEntry};
use super::entitlements::{Names, StandingEntry};
use super::shelf::Shelf;
use super::vintages::Vintages;

const CALLERS_MAX: usize = 100_000;
const KEYS_MAX: usize = 20_000;
const STANDINGS_MAX: usize = 100_000;

pub struct Memory {
    pub(super) vintages: Vintages,
    pub(super) callers: Shelf<UserId, CallerEntry>,
    /// Whether another service keeps the identities, whose changes no feed tells.
    pub(super) identities_elsewhere: bool,
    pub(super) keys: Shelf<Box<str>, KeyEntry>,
    pub(super) standings: Shelf<Meter, StandingEntry>,
    pub(super) names: Names,
}

impl Memory {
    pub fn new() -> Self {
        Self {
            vintages: Vintages::new(),
            callers: Shelf::new(CALLERS_MAX),
            identities_elsewhere: false,
            keys: Shelf::new(KEYS_MAX),
            standings: Shelf::new(STANDINGS_MAX),
            names: Names::default(),
        }
    }

    /// What is known of callers is believed for a second after it was read, whatever a feed says: the price of hearing of a
    /// ban in time is that each active caller is read once a second.
    pub fn for_identities_elsewhere() -> Self {
        Self { identities_elsewhere: true, ..Self::new() }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl ChangeListener for Memory {
    fn heard(&self, change: Change) {
        self.vintages.heard(change);
    }

    fn vouch(&self, moment: Instant) {
        self.vintages.vouch(moment);
    }

    fn lost(&self) {
        self.vintages.lost();
    }

    fn is_hearing(&self) -> bool {
        self.vintages.is_hearing()
    }
}
