//! The use cases of Product Base, one service a room.
//!
//! A service opens a unit of work, reads, applies a rule of `domain`, writes, commits. It holds its ports as trait
//! objects and knows of neither HTTP nor SQL. Every method is safe to run in a task of its own: the HTTP side spawns
//! it, so that a client that hangs up never cuts a transaction short.

pub mod ai;
pub mod ai_usage;
pub mod api_keys;
pub mod audit;
pub mod cache_loader;
pub mod chat;
pub mod coalescer;
pub mod conflicts;
pub mod entitlements;
pub mod features;
pub mod idempotency;
pub mod identity;
pub mod maintenance;
pub mod plans;
mod postponed;
pub mod prices;
pub mod replays;
pub mod snapshots;
pub mod subscriptions;
pub mod tokens;
pub mod usage;
pub mod usage_history;
pub mod users;
