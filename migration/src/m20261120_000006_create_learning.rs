//! Learning: lessons and tutorials.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261120_000006_create_learning",
    up: include_str!("steps/000006_learning.up.sql"),
    down: include_str!("steps/000006_learning.down.sql"),
};
