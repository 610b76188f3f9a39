//! The traits through which the use cases reach the outside: the store, the clock, randomness, secrets and tokens.
//!
//! One trait a room; an adapter implements all the repositories of one transaction on one type. Only the error types
//! have code.

pub mod ai;
pub mod ai_usage;
pub mod api_keys;
pub mod audit;
pub mod changes;
pub mod chat;
pub mod clock;
pub mod entitlements;
pub mod features;
pub mod idempotency;
pub mod identity;
pub mod maintenance;
pub mod plans;
pub mod prices;
pub mod randomness;
pub mod replays;
pub mod store;
pub mod subscriptions;
pub mod tokens;
pub mod usage;
pub mod usage_history;
pub mod users;
