//! Decider: the state between reading and writing a batch, in memory alone.
//!
//! Each command is decided by the pure rules of `domain::usage` on what the one before it left. An idempotency key that
//! was granted earlier in the same batch is answered like one that was granted long ago.

#[cfg(test)]
mod books;
#[cfg(test)]
mod call_tests;
mod consuming;
mod existing_reservations;
mod new_calls;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use domain::entitlements::Count;
use domain::idempotency::IdempotencyKey;
use domain::usage::{HoldId, Period};
use domain::users::UserId;
use ports::entitlements::Meter;
use ports::randomness::Randomness;
use ports::store::LockResult;
use ports::tokens::TokenChange;
use ports::usage::{
    ApiKeyUsageAddition, ApiKeyUsageChange, CallRecord, CounterChange, ReservationChange, StoredOutcome, UsageEntry,
};

use super::commands::{CommandResult, LockMode, UndecidedCommand, UnknownMeter, UsageCommand};
use super::locked_rows::{LockedCounter, LockedReservation, LockedRows, MeterLock};

/// A command that a batch can decide.
pub trait BatchCommand: UsageCommand + Sized {
    /// `place` is its place in the batch.
    fn decide(&self, place: usize, decider: &mut BatchDecider<'_>) -> CommandResult<Self>;
}

/// All that a batch writes, and the counts of the counters in force after it.
#[derive(Default)]
pub struct DecidedBatch {
    pub counters: Vec<CounterChange>,
    pub entries: Vec<UsageEntry>,
    pub reservations: Vec<ReservationChange>,
    pub key_changes: Vec<ApiKeyUsageChange>,
    pub key_additions: Vec<ApiKeyUsageAddition>,
    pub calls: Vec<CallRecord>,
    pub tokens: Vec<TokenChange>,
    pub counts: Vec<(Meter, Period, Count)>,
}

pub struct BatchDecider<'a> {
    rows: LockedRows,
    /// What was granted under idempotency keys before this batch, by the place of the command.
    granted_before: HashMap<usize, StoredOutcome>,
    /// What this batch granted, by user and idempotency key.
    granted: HashMap<(UserId, IdempotencyKey), StoredOutcome>,
    /// What each user has left to spend: one balance for all features.
    tokens: HashMap<UserId, i64>,
    /// What is to be written beside the changed rows.
    decided: DecidedBatch,
    lock_mode: LockMode,
    randomness: &'a dyn Randomness,
}

impl DecidedBatch {
    fn move_tokens(&mut self, meter: &Meter, reserved: i64, spent: i64, reservation_id: Option<HoldId>) {
        let Meter { user_id, feature_id } = meter.clone();
        self.tokens.push(TokenChange { user_id, feature_id, reserved, spent, reservation_id });
    }
}

impl<'a> BatchDecider<'a> {
    pub fn new(
        rows: LockedRows,
        granted_before: HashMap<usize, StoredOutcome>,
        lock_mode: LockMode,
        randomness: &'a dyn Randomness,
    ) -> Self {
        let balance = |counter: &LockedCounter| (counter.key.meter.user_id, counter.entitlement.tokens_available);
        let tokens = rows.counters.iter().map(balance).collect();
        let decided = DecidedBatch::default();
        Self { rows, granted_before, granted: HashMap::new(), tokens, decided, lock_mode, randomness }
    }

    /// All that is to be written, and the counts of the counters in force after that.
    pub fn finish(self) -> DecidedBatch {
        let Self { rows, tokens, mut decided, .. } = self;
        let LockedRows { counters, reservations, key_counters, .. } = rows;
        let counters: Vec<_> = counters.into_iter().filter(|counter| counter.changed).collect();
        let counts = counters.iter().filter(|counter| counter.is_in_force).map(|counter| {
            let LockedCounter { key, entitlement, .. } = counter;
            let tokens_available = tokens.get(&key.meter.user_id).copied().unwrap_or_default();
            let count = Count { tally: entitlement.tally, tokens_available, as_of: entitlement.as_of };
            (key.meter.clone(), entitlement.period, count)
        });
        decided.counts = counts.collect();
        let changed = |counter: LockedCounter| CounterChange { key: counter.key, tally: counter.entitlement.tally };
        decided.counters = counters.into_iter().map(changed).collect();
        decided.reservations.extend(reservations.into_values().filter_map(|lock| match lock {
            LockResult::Locked(locked) if locked.changed => {
                let LockedReservation { reservation, outcome, .. } = *locked;
                Some(ReservationChange { reservation, idempotency_key: None, outcome })
            }
            _ => None,
        }));
        (decided.key_changes, decided.key_additions) = key_counters.into_changes();
        decided
    }

    /// The place of the meter's counter in the locked rows.
    fn counter_in_force<E: From<UnknownMeter>>(&self, meter: &Meter) -> Result<usize, UndecidedCommand<E>> {
        match self.rows.counter_in_force(meter) {
            MeterLock::Locked(place) => Ok(*place),
            MeterLock::Busy => Err(UndecidedCommand::Busy),
            MeterLock::UnknownFeature => {
                Err(UndecidedCommand::Error(UnknownMeter::Feature(meter.feature_id.clone()).into()))
            }
            MeterLock::UnknownUser => Err(UndecidedCommand::Error(UnknownMeter::User.into())),
        }
    }

    /// Whether this batch has locked the user's tokens, so that it may move them.
    const fn may_move_tokens(&self) -> bool {
        matches!(self.lock_mode, LockMode::WaitAndSpend(_))
    }
}
