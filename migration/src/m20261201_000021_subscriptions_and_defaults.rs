//! Subscriptions: the end recorded by our own clock, and a second live one. Defaults that tools cannot read.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261201_000021_subscriptions_and_defaults",
    up: include_str!("steps/000021_subscriptions_and_defaults.up.sql"),
    down: include_str!("steps/000021_subscriptions_and_defaults.down.sql"),
};
