//! Usage: in which period a use is counted, the state of a counter, and the rules by which it changes.

mod calls;
mod consumption;
mod holds;
mod key_windows;
mod periods;
#[cfg(test)]
mod testing;

pub use calls::{
    CallEnding, CallPhase, CallTerms, ReservedCallState, UnknownPhase, extend_call, hold_call, settle_call,
};
pub use consumption::{Consumption, CounterTally, consume, needs_tokens};
pub use holds::{
    Hold, HoldEnding, HoldId, HoldOutcome, HoldRefusal, HoldStatus, UnknownHoldStatus, expire, extend,
    extending_needs_tokens, hold, release, settle,
};
pub use key_windows::{ApiKeyReservation, ApiKeyUsage, ApiKeyWindows, KeyLimitReached, WindowKind, admit, admit_more};
pub use periods::{Period, PeriodKind, UnknownPeriod};
