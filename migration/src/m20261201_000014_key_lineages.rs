//! API keys: from which key a key descends. Stored answers: what whoever got them first was allowed to do.

use crate::step::Step;

pub const STEP: Step = Step {
    name: "m20261201_000014_key_lineages",
    up: include_str!("steps/000014_key_lineages.up.sql"),
    down: include_str!("steps/000014_key_lineages.down.sql"),
};
