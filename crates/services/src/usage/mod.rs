//! Usage: consuming and holding against limits that cannot be oversold. Requests go through `lanes`, which gather them;
//! `batch` locks, reads and writes what was gathered, in one transaction; `deciding` decides it, on the `ground` that was
//! locked; `holding` says what becomes of holds; `beside` keeps apart what has to wait.

mod batch;
mod beside;
pub mod commands;
mod deciding;
mod ground;
mod holding;
pub mod lanes;

pub use lanes::{LaneSettings, LaneStatistics, UsageService};
