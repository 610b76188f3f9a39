//! Proofs of sessions: when their holder last proved who they are, and the mark of the network that they were opened from.

use crate::step::Step;

pub const STEP: Step = Step {
    name: "m20261201_000018_proofs_of_sessions",
    up: include_str!("steps/000018_proofs_of_sessions.up.sql"),
    down: include_str!("steps/000018_proofs_of_sessions.down.sql"),
};
