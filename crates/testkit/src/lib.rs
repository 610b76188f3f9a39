//! Helpers shared by the tests of several crates: a fixed clock, a stub of an identity provider, a stub of the model
//! providers, and builders.
//!
//! For tests only: a broken stub should stop its test at once, so this crate may panic.

#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "test code: a panic is how a broken stub or a mistyped id fails its test"
)]

pub mod api_keys;
pub mod clock;
pub mod entitlements;
pub mod features;
pub mod jwks;
pub mod plans;
pub mod raw;
pub mod upstream;
