//! Sums of everybody by feature and model, and what the integrity checks have proven.

use crate::step::Step;

pub const STEP: Step = Step {
    name: "m20261201_000022_totals_and_proofs",
    up: include_str!("steps/000022_totals_and_proofs.up.sql"),
    down: include_str!("steps/000022_totals_and_proofs.down.sql"),
};
