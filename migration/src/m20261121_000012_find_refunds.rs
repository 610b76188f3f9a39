//! The ledger: an index to find the refunds of one use without reading the rest of the ledger.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261121_000012_find_refunds",
    up: include_str!("steps/000012_find_refunds.up.sql"),
    down: include_str!("steps/000012_find_refunds.down.sql"),
};
