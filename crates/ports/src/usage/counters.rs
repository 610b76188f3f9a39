//! Counters: the use of a meter in a period, the events that made it, and the outcomes that are stored under idempotency
//! keys.
//!
//! Its SQL crosses rooms: a decision needs the plan, the overrides, the balance and the counter as they are in one
//! transaction, in one round trip.

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use domain::entitlements::{Decision, Entitlement};
use domain::features::FeatureKind;
use domain::idempotency::IdempotencyKey;
use domain::usage::{CounterTally, HoldId, Period, PeriodKind};
use domain::users::UserId;
use uuid::Uuid;

use super::GrantedReservation;
use crate::entitlements::Meter;
use crate::store::{LockPatience, LockResult, Locked, StoreError};

/// Identifies a counter: a meter in one period.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CounterKey {
    pub meter: Meter,
    pub period_kind: PeriodKind,
    pub period_start: DateTime<Utc>,
}

/// How a meter was found.
#[derive(Clone, Debug)]
pub enum MeterState {
    /// The counter is locked, and these are the facts under the lock.
    Locked {
        kind: FeatureKind,
        entitlement: Locked<Entitlement>,
    },
    /// There is no counter in force for the period yet.
    Uncounted(Period),
    /// Another transaction has locked the counter.
    Busy,
    UnknownUser,
    UnknownFeature,
}

/// A granted command as it is stored under its idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredOutcome {
    pub amount: i64,
    pub decision: Decision,
    /// The reservation, where one was requested.
    pub reservation: Option<GrantedReservation>,
}

/// What a batch starts from. `meters` is in the order of the request; `granted` has the outcomes of those idempotency
/// keys that were seen before, by their index in the list of keys.
#[derive(Clone, Debug)]
pub struct LockedBatch {
    pub meters: Vec<MeterState>,
    pub granted: Vec<(usize, StoredOutcome)>,
}

/// An idempotency key to look up, with the charged user to whom it belongs.
#[derive(Clone, Copy, Debug)]
pub struct KeyOfUser<'a> {
    pub user_id: UserId,
    pub key: &'a IdempotencyKey,
}

/// The new state of a counter; its row is locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterChange {
    pub key: CounterKey,
    pub tally: CounterTally,
}

/// A grant or a settlement: an event where something was used, and an outcome where it came under an idempotency key.
#[derive(Clone, Debug)]
pub struct UsageEntry {
    pub counter: CounterKey,
    pub amount: i64,
    /// The part of `amount` beyond the limit or the reservation.
    pub overage: i64,
    pub api_key_id: Option<Uuid>,
    pub reservation_id: Option<HoldId>,
    /// The event's id; `None` where nothing was used yet.
    pub event_id: Option<Uuid>,
    pub stored: Option<(IdempotencyKey, StoredOutcome)>,
}

#[async_trait]
pub trait CounterRepository: Send {
    /// Locks the counters of distinct `meters`, in their order, and reads what their decisions need: one statement.
    /// Where there are keys to look up, one more, after the locks, so that it sees every grant of them on these
    /// counters.
    async fn lock_batch(
        &mut self,
        meters: &[Meter],
        keys: &[KeyOfUser<'_>],
        patience: LockPatience,
    ) -> Result<LockedBatch, StoreError>;
    /// Puts the counters of these periods into force: creates those that are missing, and carries over what was used in
    /// a period that is still open where its kind or its anchor has changed. Locks the counters that it carries from.
    async fn open(&mut self, counters: &[(Meter, Period)]) -> Result<(), StoreError>;
    /// Locks counters of other periods than the one in force, for reservations that were made in them.
    async fn lock(
        &mut self,
        keys: &[CounterKey],
        patience: LockPatience,
    ) -> Result<Vec<LockResult<CounterTally>>, StoreError>;
    /// Writes counters, events and outcomes in one statement. `Constraint` on an idempotency key that was granted
    /// before; in `Scope::Counting` the next statement or the commit may be the one that returns it.
    async fn record(&mut self, counters: &[CounterChange], entries: &[UsageEntry]) -> Result<(), StoreError>;
    /// Deletes outcomes older than `age` by the database's clock, at most `limit` of each partition; returns how many.
    async fn delete_outcomes(&mut self, age: TimeDelta, limit: u64) -> Result<u64, StoreError>;
}
