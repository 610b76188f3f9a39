//! The retry of an SDK finds only the call whose client disconnected without the response.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261201_000029_answers_left_behind",
    up: include_str!("steps/000029_answers_left_behind.up.sql"),
    down: include_str!("steps/000029_answers_left_behind.down.sql"),
};
