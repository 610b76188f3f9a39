//! The clock of the service. Periods and money use the database's time; this one is for tokens, keys and bounds.

use std::time::Duration;

use chrono::{DateTime, Utc};

pub trait Clock: Send + Sync {
    /// The time of day. It may step back when the machine's time is corrected.
    fn now(&self) -> DateTime<Utc>;

    /// The time since a fixed moment of this process. It never goes back, so ages are measured by it.
    fn elapsed(&self) -> Duration;
}
