//! The gateway's own: prices of models, one row a price and validity.

use crate::step::Step;

pub const STEP: Step = Step {
    name: "m20261120_000009_create_model_prices",
    up: include_str!("steps/000009_model_prices.up.sql"),
    down: include_str!("steps/000009_model_prices.down.sql"),
};
