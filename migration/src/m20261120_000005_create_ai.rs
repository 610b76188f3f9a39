//! AI: the log of calls by month, chat sessions and messages.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261120_000005_create_ai",
    up: include_str!("steps/000005_ai.up.sql"),
    down: include_str!("steps/000005_ai.down.sql"),
};
