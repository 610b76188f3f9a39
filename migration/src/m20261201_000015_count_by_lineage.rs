//! API keys: what was used is counted by lineage, for the month of keys without limits too.

use crate::step::Step;

pub const STEP: Step = Step {
    name: "m20261201_000015_count_by_lineage",
    up: include_str!("steps/000015_count_by_lineage.up.sql"),
    down: include_str!("steps/000015_count_by_lineage.down.sql"),
};
