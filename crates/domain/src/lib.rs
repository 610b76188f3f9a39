//! The rules of Product Base, as types and pure functions.
//!
//! A rule takes what was read (a plan, a counter, the time) and returns the result. It reads nothing itself, so every
//! rule is tested in microseconds and can be used by another Rust service alone: see `examples/another_service.rs`.
//! This crate does not depend on HTTP, SQL or a runtime.
//!
//! Each module is a room (a subject area); the same word names it in every crate of the workspace.

pub mod ai;
pub mod ai_usage;
pub mod api_keys;
pub mod audit;
pub mod changes;
pub mod chat;
pub mod entitlements;
pub mod features;
pub mod idempotency;
pub mod identity;
pub mod maintenance;
pub mod plans;
pub mod prices;
pub mod replays;
pub mod subscriptions;
pub mod tokens;
pub mod usage;
pub mod usage_history;
pub mod users;
