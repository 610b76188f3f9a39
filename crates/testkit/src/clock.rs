//! Clocks that tests move.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ports::clock::Clock;

/// The moment of a text such as `2026-11-20T12:00:00Z`.
pub fn at(rfc3339: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(rfc3339).expect("a moment is written in RFC 3339").to_utc()
}

/// Does not move by itself. Share it as `Arc<FixedClock>`: a test moves the time of the code that it tests.
#[derive(Debug)]
pub struct FixedClock {
    now: Mutex<DateTime<Utc>>,
    began: DateTime<Utc>,
}

impl FixedClock {
    pub const fn at(now: DateTime<Utc>) -> Self {
        Self { now: Mutex::new(now), began: now }
    }

    pub fn set(&self, now: DateTime<Utc>) {
        *self.hands() = now;
    }

    pub fn advance(&self, by: TimeDelta) {
        *self.hands() += by;
    }

    // A test that panics elsewhere leaves a valid time.
    fn hands(&self) -> MutexGuard<'_, DateTime<Utc>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for FixedClock {
    fn now(&self) -> DateTime<Utc> {
        *self.hands()
    }

    /// Zero where the time of day was set to before the beginning.
    fn elapsed(&self) -> Duration {
        (*self.hands() - self.began).to_std().unwrap_or_default()
    }
}

/// Another clock, moved ahead by steps: what would happen in an hour happens at once.
pub struct SteppedClock {
    clock: Arc<dyn Clock>,
    ahead: Mutex<Duration>,
}

impl SteppedClock {
    pub fn over(clock: Arc<dyn Clock>) -> Self {
        Self { clock, ahead: Mutex::default() }
    }

    pub fn advance(&self, by: Duration) {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }

    fn ahead(&self) -> Duration {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for SteppedClock {
    fn now(&self) -> DateTime<Utc> {
        self.clock.now() + self.ahead()
    }

    fn elapsed(&self) -> Duration {
        self.clock.elapsed() + self.ahead()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_moves_only_when_told() {
        let clock = FixedClock::at(at("2026-01-31T10:00:00Z"));
        assert_eq!(clock.now(), clock.now());
        clock.advance(TimeDelta::minutes(5));
        assert_eq!((clock.now(), clock.elapsed()), (at("2026-01-31T10:05:00Z"), Duration::from_mins(5)));
        let stepped = SteppedClock::over(Arc::new(FixedClock::at(at("2026-01-31T10:00:00Z"))));
        stepped.advance(Duration::from_secs(3));
        assert_eq!((stepped.now(), stepped.elapsed()), (at("2026-01-31T10:00:03Z"), Duration::from_secs(3)));
        clock.set(DateTime::UNIX_EPOCH);
        assert_eq!(clock.now(), DateTime::UNIX_EPOCH);
    }
}
