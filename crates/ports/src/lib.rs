//! The traits through which the use cases reach the world: the store, the clock, randomness, secrets and tokens.
//!
//! A trait a room; an adapter implements all the repositories of one transaction on one type. Nothing here has a
//! body but the error types.

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
