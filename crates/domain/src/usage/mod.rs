//! Usage: in which period a use is counted, what a counter says, and the rules by which it changes.

mod calls;
mod consumption;
mod holds;
mod key_windows;
mod periods;
#[cfg(test)]
mod testing;

pub use calls::{CallEnding, CallPhase, CallTerms, HeldCall, UnknownPhase, extend_call, hold_call, settle_call};
pub use consumption::{Consumption, Tally, consume, needs_tokens};
pub use holds::{
    Ending, Hold, HoldId, HoldRefusal, HoldStatus, Holding, UnknownHoldStatus, expire, extend, extending_needs_tokens,
    hold, release, settle,
};
pub use key_windows::{KeyLimitReached, KeyShare, KeyTally, KeyWindows, WindowKind, admit, admit_more};
pub use periods::{Period, PeriodKind, UnknownPeriod};
