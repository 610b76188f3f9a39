//! Fault tests: behind a transaction pooler, clients that disconnect during a request, a database that stops or
//! freezes, a process that gets SIGTERM, and all of these together (`torture`). Each test has a time limit.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "test code: a panic is how a test fails, with its own words"
)]

mod away;
mod calls;
mod clusters;
mod freezes;
mod pgbouncer;
mod pooler;
mod resets;
mod service;
mod stops;
mod torture;
mod writers;
