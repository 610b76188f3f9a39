//! The end of each ledger is kept outside of it.

use crate::step::Step;

pub const STEP: Step = Step {
    name: "m20261201_000027_heads_of_ledgers",
    up: include_str!("steps/000027_heads_of_ledgers.up.sql"),
    down: include_str!("steps/000027_heads_of_ledgers.down.sql"),
};
