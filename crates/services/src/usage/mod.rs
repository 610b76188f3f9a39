//! Usage: consuming against limits that cannot be oversold. Requests go through `lanes`, which gather them; `batch`
//! decides and writes what was gathered, in one transaction.

pub mod batch;
pub mod lanes;

pub use lanes::{LaneSettings, LaneStatistics, UsageService};
