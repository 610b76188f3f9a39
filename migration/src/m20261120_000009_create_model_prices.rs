//! AI gateway: prices of models, one row per price and validity.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261120_000009_create_model_prices",
    up: include_str!("steps/000009_model_prices.up.sql"),
    down: include_str!("steps/000009_model_prices.down.sql"),
};
