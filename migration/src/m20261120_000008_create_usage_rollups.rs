//! Metering: hourly sums and their watermark.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261120_000008_create_usage_rollups",
    up: include_str!("steps/000008_usage_rollups.up.sql"),
    down: include_str!("steps/000008_usage_rollups.down.sql"),
};
