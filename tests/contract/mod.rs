//! The contract of the store, checked with the real Postgres adapter: every method of every port once, concurrent
//! transactions, the names of violated constraints, and row-level security.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "test code: a panic is how a test fails, with its own words"
)]

mod ai_usage;
mod answers;
mod api_keys;
mod audit;
mod calls;
mod changes;
mod chat;
mod counting;
mod entitlements;
mod features;
mod identity;
mod locked_rows;
mod maintenance;
mod people;
mod plans;
mod prices;
mod replays;
mod subscriptions;
mod tokens;
mod units_of_work;
mod usage;
mod usage_history;
mod users;
