//! Keys and products: API keys, generated APIs and their traffic.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261120_000004_create_keys_and_products",
    up: include_str!("steps/000004_keys_and_products.up.sql"),
    down: include_str!("steps/000004_keys_and_products.down.sql"),
};
