//! Chat: what a conversation cost and in which order it was said. Keys: how much one may use. Calls: what was not paid.

use crate::step::Step;

pub const STEP: Step = Step {
    name: "m20261121_000013_chat_and_key_limits",
    up: include_str!("steps/000013_chat_and_key_limits.up.sql"),
    down: include_str!("steps/000013_chat_and_key_limits.down.sql"),
};
