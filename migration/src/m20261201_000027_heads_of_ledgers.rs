//! The last row of each ledger is also stored outside it.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261201_000027_heads_of_ledgers",
    up: include_str!("steps/000027_heads_of_ledgers.up.sql"),
    down: include_str!("steps/000027_heads_of_ledgers.down.sql"),
};
