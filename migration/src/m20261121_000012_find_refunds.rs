//! The ledger: what was refunded of one use is found without reading the rest of the ledger.

use crate::step::Step;

pub const STEP: Step = Step {
    name: "m20261121_000012_find_refunds",
    up: include_str!("steps/000012_find_refunds.up.sql"),
    down: include_str!("steps/000012_find_refunds.down.sql"),
};
