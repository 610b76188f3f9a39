//! Maintenance: the findings of the regular checks of the ledgers, counters and schema.

use chrono::{DateTime, Utc};

/// A violation found in the data. `finding` is a stable word such as `MISSING_AUTH_USER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntegrityFinding {
    pub finding: String,
    pub subject: String,
    pub detail: String,
}

/// The findings of the last checks. The checks run in pieces, each at its own time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntegrityReport {
    pub findings: Vec<IntegrityFinding>,
    /// When the piece checked longest ago was checked; `None` while a piece was never checked.
    pub checked_at: Option<DateTime<Utc>>,
}
