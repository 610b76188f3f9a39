//! The retry of an SDK finds the call that its client left, and no other one.

use crate::step::Step;

pub const STEP: Step = Step {
    name: "m20261201_000029_answers_left_behind",
    up: include_str!("steps/000029_answers_left_behind.up.sql"),
    down: include_str!("steps/000029_answers_left_behind.down.sql"),
};
