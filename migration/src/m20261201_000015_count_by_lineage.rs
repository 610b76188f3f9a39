//! API keys: use is counted by lineage, for the current month also for keys without limits.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261201_000015_count_by_lineage",
    up: include_str!("steps/000015_count_by_lineage.up.sql"),
    down: include_str!("steps/000015_count_by_lineage.down.sql"),
};
