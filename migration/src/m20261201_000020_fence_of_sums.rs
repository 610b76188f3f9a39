//! Sums of use: up to when they are final, and the fence of transactions that may still add events.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261201_000020_fence_of_sums",
    up: include_str!("steps/000020_fence_of_sums.up.sql"),
    down: include_str!("steps/000020_fence_of_sums.down.sql"),
};
