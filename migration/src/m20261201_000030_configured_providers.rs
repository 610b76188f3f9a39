//! The names of providers are rows of a table: the settings add to the three that are built in.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261201_000030_configured_providers",
    up: include_str!("steps/000030_configured_providers.up.sql"),
    down: include_str!("steps/000030_configured_providers.down.sql"),
};
