//! HTTP: a module a room, and what all rooms share.

pub mod api_keys;
pub mod audit;
pub mod caller;
pub mod cors;
pub mod detached;
pub mod entitlements;
pub mod features;
pub mod finish;
pub mod identity;
pub mod limits;
pub mod maintenance;
pub mod metrics;
pub mod once;
pub mod openapi;
pub mod pages;
pub mod plans;
pub mod prices;
pub mod problem;
pub mod routes;
pub mod server;
pub mod subscriptions;
pub mod tokens;
pub mod usage;
pub mod usage_history;
pub mod users;
pub mod valid;
