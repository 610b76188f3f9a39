//! Organizations stay when the profile of their owner is deleted.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261201_000024_organizations_outlive_owners",
    up: include_str!("steps/000024_organizations_outlive_owners.up.sql"),
    down: include_str!("steps/000024_organizations_outlive_owners.down.sql"),
};
