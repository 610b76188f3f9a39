//! The clock of the service. Periods and money use the database's time; this one is for tokens, keys and bounds.

use chrono::{DateTime, Utc};

pub trait Clock: Send + Sync {
    fn now(&self) -> DateTime<Utc>;
}
