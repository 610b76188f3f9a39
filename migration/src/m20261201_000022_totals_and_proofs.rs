//! Sums of all users by feature and model, and the state of the integrity checks.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261201_000022_totals_and_proofs",
    up: include_str!("steps/000022_totals_and_proofs.up.sql"),
    down: include_str!("steps/000022_totals_and_proofs.down.sql"),
};
