//! Usage: consuming and holding against the limits.

pub mod demands;
pub mod refusals;
pub mod reservations;
