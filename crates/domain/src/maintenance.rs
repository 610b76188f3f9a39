//! Maintenance: what the regular checks of the books and of the schema can find.

use chrono::{DateTime, Utc};

/// Something that the data says and must not be. `finding` is a stable word such as `MISSING_AUTH_USER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntegrityFinding {
    pub finding: String,
    pub subject: String,
    pub detail: String,
}

/// What the last checks found. They are made in pieces, each at its own time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntegrityReport {
    pub findings: Vec<IntegrityFinding>,
    /// When the piece that was checked longest ago was checked; `None` while one of them never was.
    pub checked_at: Option<DateTime<Utc>>,
}
