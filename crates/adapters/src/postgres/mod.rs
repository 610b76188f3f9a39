//! The store on Postgres: every port of the database, in one file a room.
//!
//! Architecture Invariant: every statement runs inside a transaction that `transaction` opened, under a role that it
//! set; SQLSTATE is read in `error` only; no SQL here names the table of the identities, which on Supabase is another's.

mod ai_usage;
mod answer_sealing;
mod api_keys;
mod audit;
mod changes;
mod chat;
mod counting;
pub mod embedded;
mod entities;
mod entitlements;
mod error;
mod features;
mod idempotency;
mod identity;
mod literals;
mod maintenance;
mod messages;
mod opening;
mod plans;
mod pool;
mod prices;
mod replays;
mod rows;
mod self_test;
mod store;
mod subscriptions;
mod tokens;
mod transaction;
mod usage;
mod usage_history;
mod users;

pub use changes::ChangeFeed;
pub use pool::{PoolSettings, PoolState, Pooler};
pub use store::{PgStore, PgUnitOfWork};
