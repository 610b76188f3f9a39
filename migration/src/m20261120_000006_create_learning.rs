//! Learning: lessons and tutorials.

use crate::step::Step;

pub const STEP: Step = Step {
    name: "m20261120_000006_create_learning",
    up: include_str!("steps/000006_learning.up.sql"),
    down: include_str!("steps/000006_learning.down.sql"),
};
