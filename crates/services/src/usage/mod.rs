//! Usage: consuming and reserving against limits that cannot be oversold.
//!
//! `commands` and `call_commands` are what is requested, each with its outcome. `group_commit` gathers them, with their
//! callers (`queued_commands`), into batches. `batch` locks, reads and writes the rows of one batch in one transaction.
//! `decider` decides each command on the `locked_rows`, by what `reservations` and `key_counters` say. `beside` runs
//! the commands of users whose rows are busy. `sweep` expires reservations and deletes what is old.

mod batch;
mod beside;
pub mod call_commands;
pub mod commands;
mod decider;
pub mod group_commit;
mod key_counters;
mod locked_rows;
mod queued_commands;
mod reservations;
mod sweep;

pub use group_commit::{GroupCommitSettings, GroupCommitStatistics, UsageService};
