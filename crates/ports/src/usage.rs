//! Usage: counters, events and the outcomes that are kept under idempotency keys, a batch at a time.
//!
//! The one repository whose SQL crosses rooms: a decision needs the plan, the overrides, the balance and the counter
//! as they are in one transaction, in one round trip.

use async_trait::async_trait;
use chrono::TimeDelta;
use domain::entitlements::{Decision, Entitlement};
use domain::features::{FeatureId, FeatureKind};
use domain::idempotency::IdempotencyKey;
use domain::usage::Period;
use domain::users::UserId;
use uuid::Uuid;

use crate::store::{Locked, StoreError};

/// What is counted: one feature of one user.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Meter {
    pub user_id: UserId,
    pub feature_id: FeatureId,
}

/// What to do about a counter that another transaction holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Leave it out: one held row must not stall the others.
    Skip,
    /// Wait for it, as long as the lock timeout allows (`StoreError::Conflict` after that).
    Wait,
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
    /// Another transaction holds the counter.
    Held,
    UnknownUser,
    UnknownFeature,
}

/// A granted consumption as it is kept under its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptOutcome {
    pub amount: i64,
    pub decision: Decision,
}

/// What a batch starts from. `meters` stands in the order that was asked for; `kept` has the outcomes of those keys
/// that were seen before, by their place in the list of keys.
#[derive(Clone, Debug)]
pub struct LockedBatch {
    pub meters: Vec<MeterState>,
    pub kept: Vec<(usize, KeptOutcome)>,
}

/// A key to look up: the place of its meter in the list, and the key itself.
#[derive(Clone, Copy, Debug)]
pub struct KeyOfMeter<'a> {
    pub meter: usize,
    pub key: &'a IdempotencyKey,
}

/// A granted consumption to be written: the event, the counter's share and the outcome under the key.
#[derive(Clone, Debug)]
pub struct Grant {
    pub event_id: Uuid,
    pub user_id: UserId,
    pub key: IdempotencyKey,
    pub amount: i64,
    pub overage: i64,
    pub api_key_id: Option<Uuid>,
    /// As it is answered; it names the feature, the plan and the period too.
    pub decision: Decision,
    pub period: Period,
}

#[async_trait]
pub trait UsageRepository: Send {
    /// Locks the counters of distinct `meters`, in their order, and reads all that decides about them: one statement.
    async fn lock_batch(
        &mut self,
        meters: &[Meter],
        keys: &[KeyOfMeter<'_>],
        patience: Patience,
    ) -> Result<LockedBatch, StoreError>;
    /// Puts the counters of these periods into force: makes those that are not there yet, and carries what was used in a
    /// period that is still open where its kind or its anchor has moved. Takes the locks of the counters it carries from.
    async fn open_counters(&mut self, counters: &[(Meter, Period)]) -> Result<(), StoreError>;
    /// Writes counters, events and outcomes in one statement. `Constraint` on a key that came in meanwhile.
    async fn record_batch(&mut self, grants: &[Grant]) -> Result<(), StoreError>;
    /// Takes tokens for use beyond a limit: the balance, under the lock of the user's row, and its ledger row.
    async fn spend_tokens(
        &mut self,
        user_id: UserId,
        amount_tokens: i64,
        feature_id: &FeatureId,
    ) -> Result<(), StoreError>;
    /// Deletes outcomes older than `age` by the database's clock, at most `limit`; says how many.
    async fn delete_outcomes(&mut self, age: TimeDelta, limit: u64) -> Result<u64, StoreError>;
}
