//! Usage: consuming and reserving against limits that cannot be oversold. `group_commit` gathers commands into batches.
//! `batch` locks, reads and writes the rows of one batch in one transaction. `decider` decides each command on the
//! `locked_rows`. `reservations` has the rules of commands on reservations (type `Hold`). `beside` runs the commands of
//! users whose rows are busy.

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
