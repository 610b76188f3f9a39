//! Failures: how often credentials of an address were refused, and until when it is blocked. A check is not counted.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Instant;

use governor::RateLimiter;
use governor::clock::{Clock as _, DefaultClock};

use super::{Place, TellingCounter, a_minute, too_many};
use crate::http::problem::Problem;

/// The failures of addresses, and until when those that failed too often are blocked.
pub struct CredentialFailures {
    counter: TellingCounter,
    held_back: RwLock<HashMap<Place, Instant>>,
}

impl CredentialFailures {
    pub fn new(limit: u32) -> anyhow::Result<Self> {
        let counter = RateLimiter::keyed(a_minute("failures_per_ip", limit)?).with_middleware();
        Ok(Self { counter, held_back: RwLock::default() })
    }

    pub fn check(&self, place: impl FnOnce() -> Place) -> Result<(), Problem> {
        let held_back = self.held_back.read().unwrap_or_else(PoisonError::into_inner);
        // Mostly none is, and then nothing has to be computed.
        let until = if held_back.is_empty() { None } else { held_back.get(&place()).copied() };
        drop(held_back);
        match until.map(|until| until.saturating_duration_since(Instant::now())) {
            Some(wait) if !wait.is_zero() => {
                Err(too_many("Too many refused credentials came from your address.", wait))
            }
            _ => Ok(()),
        }
    }

    /// Counts one more. A blocked address is not counted, so that its wait does not grow.
    pub fn count(&self, place: Place) -> Result<(), Problem> {
        self.check(|| place)?;
        let wait = match self.counter.check_key(&place) {
            Ok(left) if left.remaining_burst_capacity() > 0 => return Ok(()),
            // This was the last one allowed: the next is blocked until one more is allowed.
            Ok(left) => left.quota().replenish_interval(),
            Err(not_until) => not_until.wait_time_from(DefaultClock::default().now()),
        };
        let mut held_back = self.held_back.write().unwrap_or_else(PoisonError::into_inner);
        held_back.insert(place, Instant::now() + wait);
        Ok(())
    }

    pub fn sweep(&self) {
        self.counter.retain_recent();
        self.counter.shrink_to_fit();
        let now = Instant::now();
        let mut held_back = self.held_back.write().unwrap_or_else(PoisonError::into_inner);
        held_back.retain(|_, until| *until > now);
        held_back.shrink_to_fit();
    }
}
