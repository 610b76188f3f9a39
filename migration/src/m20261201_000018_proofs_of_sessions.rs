//! Sessions: when the user last authenticated, and a digest of the network from which the session was opened.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261201_000018_proofs_of_sessions",
    up: include_str!("steps/000018_proofs_of_sessions.up.sql"),
    down: include_str!("steps/000018_proofs_of_sessions.down.sql"),
};
