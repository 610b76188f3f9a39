//! The clock of the service. Periods and money go by the database's time; this one serves tokens, keys and bounds.

use chrono::{DateTime, Utc};

pub trait Clock: Send + Sync {
    fn now(&self) -> DateTime<Utc>;
}
