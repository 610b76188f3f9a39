//! Usage: in which period a use is counted, what a counter says, and the rules by which it changes.

mod calls;
mod consumption;
mod holds;
mod periods;
#[cfg(test)]
mod testing;

pub use calls::{
    CallEnding, CallPhase, CallTerms, HeldCall, KeyLimitReached, KeyShare, KeyTally, KeyWindows, UnknownPhase,
    WindowKind, admit, call_needs_tokens, extend_call, hold_call, settle_call,
};
pub use consumption::{Consumption, Tally, consume, needs_tokens};
pub use holds::{
    Ending, Hold, HoldId, HoldRefusal, HoldStatus, Holding, UnknownHoldStatus, expire, extend, extending_needs_tokens,
    hold, release, settle,
};
pub use periods::{Period, PeriodKind, UnknownPeriod};
