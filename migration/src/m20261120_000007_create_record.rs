//! Record: audit trail, outbox, alerts and webhooks.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261120_000007_create_record",
    up: include_str!("steps/000007_record.up.sql"),
    down: include_str!("steps/000007_record.down.sql"),
};
