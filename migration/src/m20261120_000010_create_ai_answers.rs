//! AI gateway: stored responses of idempotent AI calls.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261120_000010_create_ai_answers",
    up: include_str!("steps/000010_ai_answers.up.sql"),
    down: include_str!("steps/000010_ai_answers.down.sql"),
};
