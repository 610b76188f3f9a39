//! Usage: consuming and holding against the limits.

pub mod demands;
mod refusals;
pub mod reservations;
