//! Sums of use: up to when they are final, and until which transactions have ended that is not known.

use crate::step::Step;

pub const STEP: Step = Step {
    name: "m20261201_000020_fence_of_sums",
    up: include_str!("steps/000020_fence_of_sums.up.sql"),
    down: include_str!("steps/000020_fence_of_sums.down.sql"),
};
