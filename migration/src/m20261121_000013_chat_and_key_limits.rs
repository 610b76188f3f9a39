//! Chat: cost of conversations and order of messages. API keys: limits. Calls: unpaid tokens.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261121_000013_chat_and_key_limits",
    up: include_str!("steps/000013_chat_and_key_limits.up.sql"),
    down: include_str!("steps/000013_chat_and_key_limits.down.sql"),
};
