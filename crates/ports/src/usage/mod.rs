//! Usage: what a batch of the group commit reads under locks and writes. All transactions take locks in one order: the
//! user's row where tokens are at stake, then reservations, counters, conversations, and windows of API keys.

mod api_key_usage;
mod call_log;
mod counters;
mod reservations;

pub use api_key_usage::{ApiKeyUsageAddition, ApiKeyUsageChange, ApiKeyUsageRepository, ApiKeyWindow};
pub use call_log::{BeyondHold, CallLogRepository, CallOutcome, CallRecord, CallResult, DueCall, SaidMessage};
pub use counters::{
    CounterChange, CounterKey, CounterRepository, KeyOfUser, LockedBatch, MeterState, StoredOutcome, UsageEntry,
};
pub use reservations::{GrantedReservation, ReservationChange, ReservationRepository, StoredReservation};
