//! The store on Postgres: implements every database port, one file per room.
//!
//! Architecture Invariant: every statement runs inside a transaction that `transaction` began, under a role that it
//! set. SQLSTATE is read in `error` only. No SQL here names the table of the identities, which on Supabase belongs to
//! another service.

mod ai_usage;
mod answer_sealing;
mod api_keys;
mod array_literals;
mod audit;
mod begin_message;
mod changes;
mod chat;
pub mod embedded;
mod entities;
mod entitlements;
mod error;
mod features;
mod idempotency;
mod identity;
mod maintenance;
mod pinned_connections;
mod pipelined_statements;
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
pub use pool::{PoolSettings, PoolState, PoolerMode};
pub use store::{PgStore, PgUnitOfWork};
