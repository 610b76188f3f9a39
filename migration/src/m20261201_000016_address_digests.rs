//! Address digests: which mailboxes and telephones had a profile, so that none gets a second starting balance or quota.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261201_000016_address_digests",
    up: include_str!("steps/000016_address_digests.up.sql"),
    down: include_str!("steps/000016_address_digests.down.sql"),
};
