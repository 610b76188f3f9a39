//! All that this process remembers of users, in one place, so that a change is heard by all of it.
//!
//! Bounds: 100,000 roles, 20,000 keys and 100,000 entitlements; some 40 MiB when all of it is full.

use std::time::Instant;

use domain::changes::Change;
use domain::users::UserId;
use ports::changes::ChangeListener;
use ports::entitlements::Meter;

use super::callers::{KeyEntry, RoleEntry};
use super::entitlements::{Names, StandingEntry};
use super::shelf::Shelf;
use super::vintages::Vintages;

const ROLES_MAX: usize = 100_000;
const KEYS_MAX: usize = 20_000;
const STANDINGS_MAX: usize = 100_000;

pub struct Memory {
    pub(super) vintages: Vintages,
    pub(super) roles: Shelf<UserId, RoleEntry>,
    pub(super) keys: Shelf<Box<str>, KeyEntry>,
    pub(super) standings: Shelf<Meter, StandingEntry>,
    pub(super) names: Names,
}

impl Memory {
    pub fn new() -> Self {
        Self {
            vintages: Vintages::new(),
            roles: Shelf::new(ROLES_MAX),
            keys: Shelf::new(KEYS_MAX),
            standings: Shelf::new(STANDINGS_MAX),
            names: Names::default(),
        }
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
