//! Organizations stay when the profile of their owner goes.

use crate::step::Step;

pub const STEP: Step = Step {
    name: "m20261201_000024_organizations_outlive_owners",
    up: include_str!("steps/000024_organizations_outlive_owners.up.sql"),
    down: include_str!("steps/000024_organizations_outlive_owners.down.sql"),
};
