//! Second factors: sealed secrets of one-time codes, and recovery codes.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261201_000019_second_factors",
    up: include_str!("steps/000019_second_factors.up.sql"),
    down: include_str!("steps/000019_second_factors.down.sql"),
};
