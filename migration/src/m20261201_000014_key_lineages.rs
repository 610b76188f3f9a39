//! API keys: the lineage and makers of a key. Stored responses: the rights of the caller that got them first.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261201_000014_key_lineages",
    up: include_str!("steps/000014_key_lineages.up.sql"),
    down: include_str!("steps/000014_key_lineages.down.sql"),
};
