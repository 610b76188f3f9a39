//! Usage: counters, events by month, reservations, and the idempotency keys that make a retry count once.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261120_000003_create_usage",
    up: include_str!("steps/000003_usage.up.sql"),
    down: include_str!("steps/000003_usage.down.sql"),
};
