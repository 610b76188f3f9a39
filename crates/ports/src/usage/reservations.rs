//! Reservations: amounts that are set aside before they are used.

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use domain::entitlements::Decision;
use domain::idempotency::IdempotencyKey;
use domain::usage::{Hold, HoldId};
use domain::users::UserId;

use super::MeterState;
use crate::entitlements::Meter;
use crate::store::{LockPatience, LockResult, StoreError};

/// A reservation as it is stored.
#[derive(Clone, Debug)]
pub struct StoredReservation {
    pub reservation: Hold,
    /// Whether its time is over, by the database's clock.
    pub is_due: bool,
    /// The stored answer to the command that ended it.
    pub outcome: Option<Decision>,
}

/// The reservation that was made under an idempotency key, as it was answered first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantedReservation {
    pub id: HoldId,
    pub expires_at: DateTime<Utc>,
}

/// The new state of a reservation: made, or changed under its lock.
#[derive(Clone, Debug)]
pub struct ReservationChange {
    pub reservation: Hold,
    /// The idempotency key under which it was made; for one that is made now.
    pub idempotency_key: Option<IdempotencyKey>,
    /// The answer, where it has ended.
    pub outcome: Option<Decision>,
}

#[async_trait]
pub trait ReservationRepository: Send {
    /// Locks distinct reservations, in the order of `ids`, which are sorted, and then, as
    /// `CounterRepository::lock_batch` does, the counters of `meters`, of which there may be none: a statement each,
    /// and one message.
    async fn lock(
        &mut self,
        ids: &[HoldId],
        meters: &[Meter],
        patience: LockPatience,
    ) -> Result<(Vec<LockResult<Box<StoredReservation>>>, Vec<MeterState>), StoreError>;
    /// Writes reservations that are made, or changed under their locks: one statement.
    async fn save(&mut self, changes: &[ReservationChange]) -> Result<(), StoreError>;
    /// Reservations whose time is over and for which nothing was sent, the longest overdue first, at most `limit`, with
    /// their users, without those in `excluded`.
    async fn list_due(&mut self, excluded: &[HoldId], limit: u64) -> Result<Vec<(HoldId, UserId)>, StoreError>;
    /// Deletes reservations that ended longer than `age` ago by the database's clock, at most `limit`; returns how
    /// many.
    async fn delete_ended(&mut self, age: TimeDelta, limit: u64) -> Result<u64, StoreError>;
}
