//! Faults: what happens behind a transaction pooler, when clients hang up in the middle, when the database goes away or
//! freezes, when the process is told to stop, and all of it at once (`torture`). Each test is bounded in time.

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
