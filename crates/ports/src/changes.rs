//! Changes: who is told of them, and by what a memory tells what it read before one from what it read after.

use std::time::Instant;

use domain::changes::Change;

/// Whoever remembers what the database can change. One who changes something tells it after the commit; a feed tells it
/// of everybody's changes.
pub trait ChangeListener: Send + Sync {
    /// Something changed: what was read of it before this call is believed no longer.
    fn heard(&self, change: Change);
    /// Every change that was committed before `moment` has been told by `heard`.
    fn vouch(&self, moment: Instant);
    /// Changes may have been missed: nothing that was read before this call is believed.
    fn lost(&self);
    /// Whether a feed has vouched for the last second.
    fn is_hearing(&self) -> bool;
}

/// Taken before the database is asked, and shown when the answer is remembered: an answer that a change has overtaken is
/// believed no longer. The numbers mean something to the memory that gave them, and nothing to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub facts: u64,
    pub counts: u64,
    pub asked_at: Instant,
}
