//! The system clock, the only place that reads the time of day. One system call per reading. It may step backwards when
//! the machine's time is corrected, so two readings do not prove an order of events.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use ports::clock::Clock;

/// The moment from which the process counts: that of the first reading.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that the lint sends everybody to")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    fn elapsed(&self) -> Duration {
        START.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_the_time_of_the_machine() {
        let before = std::time::SystemTime::now();
        let read = std::time::SystemTime::from(SystemClock.now());
        assert!(before <= read && read <= std::time::SystemTime::now());
        let elapsed = SystemClock.elapsed();
        assert!(elapsed <= SystemClock.elapsed());
    }
}
