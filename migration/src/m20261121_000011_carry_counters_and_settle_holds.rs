//! Metering: use that is carried into another counter, and what a hold came to.

use crate::step::Step;

pub const STEP: Step = Step {
    name: "m20261121_000011_carry_counters_and_settle_holds",
    up: include_str!("steps/000011_carry_counters_and_settle_holds.up.sql"),
    down: include_str!("steps/000011_carry_counters_and_settle_holds.down.sql"),
};
