//! A cache whose age tests decide.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta};
use testkit::clock::FixedClock;

use super::ProcessCache;

/// A cache, and the clock by which it ages. An hour has passed, so that a ticket can be older.
pub fn cache_and_clock() -> (ProcessCache, Arc<FixedClock>) {
    let clock = an_hour_later();
    (ProcessCache::new(Arc::<FixedClock>::clone(&clock)), clock)
}

pub fn an_hour_later() -> Arc<FixedClock> {
    let clock = FixedClock::at(DateTime::UNIX_EPOCH);
    clock.advance(TimeDelta::hours(1));
    Arc::new(clock)
}
