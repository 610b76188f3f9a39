//! The providers against the stub upstream: what is sent, what is read, what fails, and what it costs.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and clippy knows a test's own functions only by their attribute"
)]

mod asking;
mod bills;
mod bytes;
mod conversations;
mod faults;
mod lenience;
mod refusals;
mod sandbox;
mod timeouts;
mod unreported;
