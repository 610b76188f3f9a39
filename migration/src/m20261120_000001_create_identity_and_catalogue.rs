//! Identity and catalogue: profiles, organizations, plans, features, sessions, and `auth` where no provider brings it.

use crate::step::Step;

pub const STEP: Step = Step {
    name: "m20261120_000001_create_identity_and_catalogue",
    up: include_str!("steps/000001_identity_and_catalogue.up.sql"),
    down: include_str!("steps/000001_identity_and_catalogue.down.sql"),
};
