//! The gateway's own: the replay of idempotent AI calls.

use crate::step::Step;

pub const STEP: Step = Step {
    name: "m20261120_000010_create_ai_answers",
    up: include_str!("steps/000010_ai_answers.up.sql"),
    down: include_str!("steps/000010_ai_answers.down.sql"),
};
