//! Identity and catalogue: profiles, organizations, plans, features, sessions, and `auth` if no provider has it.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261120_000001_create_identity_and_catalogue",
    up: include_str!("steps/000001_identity_and_catalogue.up.sql"),
    down: include_str!("steps/000001_identity_and_catalogue.down.sql"),
};
