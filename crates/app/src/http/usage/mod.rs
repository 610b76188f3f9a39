//! Usage: consumption and reservations.

pub mod demands;
pub mod refusals;
pub mod reservations;
