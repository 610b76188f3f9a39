//! The cache of this process: keeps what was just read from Postgres, so that not every request reads it again.
//!
//! `clock_cache` is a map of bounded size. `versions` tells which entries are still fresh. `callers` and `entitlements`
//! are the cached data. Nothing waits here, and no job removes entries: a stale entry is replaced when its place is
//! needed.

mod caches;
mod callers;
mod clock_cache;
mod entitlements;
#[cfg(test)]
mod testing;
mod versions;

pub use caches::ProcessCache;
pub(crate) use clock_cache::ClockCache;
