//! Indexes for lists and sweeps, created while the tables are in use.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261201_000023_indexes_of_lists",
    up: include_str!("steps/000023_indexes_of_lists.up.sql"),
    down: include_str!("steps/000023_indexes_of_lists.down.sql"),
};
