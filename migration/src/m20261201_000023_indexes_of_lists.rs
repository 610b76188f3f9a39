//! The indexes of lists and sweeps, made while the tables are in use.

use crate::step::Step;

pub const STEP: Step = Step {
    name: "m20261201_000023_indexes_of_lists",
    up: include_str!("steps/000023_indexes_of_lists.up.sql"),
    down: include_str!("steps/000023_indexes_of_lists.down.sql"),
};
