//! The memory of this process: what was read from Postgres a moment ago, so that not every request reads it again.
//!
//! `shelf` holds a bounded number of things; `vintages` says which of them are still believed; `callers` and
//! `entitlements` are what is held. Nothing waits here, and nothing is swept: what is believed no longer stays on its
//! place until something newer needs it.

mod callers;
mod entitlements;
mod remembered;
mod shelf;
mod vintages;

pub use remembered::Memory;
pub(crate) use shelf::Shelf;
