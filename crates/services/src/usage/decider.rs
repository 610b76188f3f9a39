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
use ports::usage::{BatchRecord, CounterChange, HoldChange, KeptOutcome, TokenChange};

use super::commands::{CommandResult, LockMode, UndecidedCommand, UnknownMeter, UsageCommand};
use super::locked_rows::{LockedCounter, LockedRows, MeterLock, ReservationLock};

/// A command that a batch can decide.
pub trait BatchCommand: UsageCommand + Sized {
    /// `place` is its place in the batch.
    fn decide(&self, place: usize, decider: &mut BatchDecider<'_>) -> CommandResult<Self>;
}

/// The result of a batch.
pub struct DecidedBatch {
    pub record: BatchRecord,
    pub tokens: Vec<TokenChange>,
    pub counts: Vec<(Meter, Period, Count)>,
}

pub struct BatchDecider<'a> {
    rows: LockedRows,
    /// What was granted under idempotency keys before this batch, by the place of the command.
    granted_before: HashMap<usize, KeptOutcome>,
    /// What this batch granted, by user and idempotency key.
    granted: HashMap<(UserId, IdempotencyKey), KeptOutcome>,
    /// What each user has left to spend: one balance for all features.
    tokens: HashMap<UserId, i64>,
    writes: BatchWrites,
    lock_mode: LockMode,
    randomness: &'a dyn Randomness,
}

/// What is to be written beside the changed rows.
#[derive(Default)]
struct BatchWrites {
    record: BatchRecord,
    tokens: Vec<TokenChange>,
}

impl BatchWrites {
    fn move_tokens(&mut self, meter: &Meter, held: i64, spent: i64, hold_id: Option<HoldId>) {
        let Meter { user_id, feature_id } = meter.clone();
        self.tokens.push(TokenChange { user_id, feature_id, held, spent, hold_id });
    }
}

impl<'a> BatchDecider<'a> {
    pub fn new(
        rows: LockedRows,
        granted_before: HashMap<usize, KeptOutcome>,
        lock_mode: LockMode,
        randomness: &'a dyn Randomness,
    ) -> Self {
        let balance = |counter: &LockedCounter| (counter.key.meter.user_id, counter.entitlement.tokens_available);
        let tokens = rows.counters.iter().map(balance).collect();
        let writes = BatchWrites::default();
        Self { rows, granted_before, granted: HashMap::new(), tokens, writes, lock_mode, randomness }
    }

    /// All that is to be written, and the counts of the counters in force after that.
    pub fn finish(self) -> DecidedBatch {
        let Self { rows, tokens, writes: BatchWrites { mut record, tokens: moved }, .. } = self;
        let LockedRows { counters, reservations, key_counters, .. } = rows;
        let counters: Vec<_> = counters.into_iter().filter(|counter| counter.changed).collect();
        let counts = counters.iter().filter(|counter| counter.is_in_force).map(|counter| {
            let LockedCounter { key, entitlement, .. } = counter;
            let tokens_available = tokens.get(&key.meter.user_id).copied().unwrap_or_default();
            let count = Count { tally: entitlement.tally, tokens_available, as_of: entitlement.as_of };
            (key.meter.clone(), entitlement.period, count)
        });
        let counts = counts.collect();
        let changed = |counter: LockedCounter| CounterChange { key: counter.key, tally: counter.entitlement.tally };
        record.counters = counters.into_iter().map(changed).collect();
        record.holds.extend(reservations.into_values().filter_map(|lock| match lock {
            ReservationLock::Locked(locked) if locked.changed => {
                Some(HoldChange { hold: locked.reservation, key: None, outcome: locked.outcome })
            }
            _ => None,
        }));
        (record.keys, record.key_uses) = key_counters.into_changes();
        DecidedBatch { record, tokens: moved, counts }
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
