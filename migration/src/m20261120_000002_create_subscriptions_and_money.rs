//! Subscriptions and money: subscriptions, Stripe's events, the token ledger, billing records.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261120_000002_create_subscriptions_and_money",
    up: include_str!("steps/000002_subscriptions_and_money.up.sql"),
    down: include_str!("steps/000002_subscriptions_and_money.down.sql"),
};
