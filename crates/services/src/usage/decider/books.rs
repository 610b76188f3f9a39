//! Books in memory, for tests: they stand in for the database between batches.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, Utc};
use domain::entitlements::{Access, Allowance, Decision, Entitlement, Overage, Source};
use domain::features::{FeatureId, FeatureKind};
use domain::idempotency::IdempotencyKey;
use domain::plans::PlanId;
use domain::usage::{ApiKeyUsage, CounterTally, Hold, HoldId, HoldStatus, Period, PeriodKind};
use domain::users::UserId;
use ports::entitlements::Meter;
use ports::randomness::Randomness;
use ports::store::{LockResult, Locked};
use ports::usage::{ApiKeyWindow, MeterState, StoredOutcome, StoredReservation};
use uuid::Uuid;

use super::super::commands::LockMode;
use super::super::locked_rows::LockedRows;
use super::{BatchDecider, DecidedBatch};

/// Ids in the order in which they are made.
#[derive(Debug, Default)]
struct NumberedIds(AtomicU64);

impl Randomness for NumberedIds {
    fn new_id(&self) -> Uuid {
        Uuid::from_u128(u128::from(self.0.fetch_add(1, Ordering::Relaxed)) + 1_000)
    }

    fn below(&self, _: u64) -> u64 {
        0
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserTokens {
    pub balance: i64,
    pub reserved: i64,
}

/// A command of a test, which keeps its result.
pub trait BatchedCommand {
    fn idempotency_key(&self) -> Option<(UserId, IdempotencyKey)>;
    fn decide(&mut self, place: usize, decider: &mut BatchDecider<'_>);
}

#[derive(Debug)]
pub struct TestBooks {
    ids: NumberedIds,
    pub meters: BTreeMap<Meter, (FeatureKind, Entitlement)>,
    pub tokens: BTreeMap<UserId, UserTokens>,
    /// With the decision that ended them.
    reservations: BTreeMap<HoldId, (Hold, Option<Decision>)>,
    /// Whether the time of the reservations is over.
    pub are_due: bool,
    /// Reservations that another transaction has locked.
    pub busy: HashSet<HoldId>,
    /// What was granted under idempotency keys.
    pub granted: HashMap<(UserId, IdempotencyKey), StoredOutcome>,
    /// What events say was used, in all.
    pub used: BTreeMap<Meter, i64>,
    /// The windows of API keys; `None` is locked by another transaction.
    pub windows: BTreeMap<ApiKeyWindow, Option<ApiKeyUsage>>,
    /// How many rows the batches have written.
    pub rows_written: usize,
}

pub fn user(number: u128) -> UserId {
    UserId(Uuid::from_u128(number))
}

pub fn feature(name: &str) -> FeatureId {
    FeatureId::parse(name).unwrap()
}

pub fn meter(number: u128, name: &str) -> Meter {
    Meter { user_id: user(number), feature_id: feature(name) }
}

/// The time of all batches.
pub const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

pub fn entitlement(name: &str, limit: Option<i64>, overage: Overage) -> Entitlement {
    Entitlement {
        feature_id: feature(name),
        plan_id: PlanId::free(),
        source: Source::Plan,
        access: Access::Granted,
        allowance: Allowance::try_new(limit).unwrap(),
        overage,
        period: Period::containing(PeriodKind::Month, NOW, NOW),
        tally: CounterTally::default(),
        tokens_available: 0,
        as_of: NOW,
    }
}

impl TestBooks {
    pub fn new(meters: impl IntoIterator<Item = (Meter, Entitlement)>, tokens: i64) -> Self {
        let meters: BTreeMap<_, _> =
            meters.into_iter().map(|(meter, terms)| (meter, (FeatureKind::Metered, terms))).collect();
        let of_user = |meter: &Meter| (meter.user_id, UserTokens { balance: tokens, reserved: 0 });
        Self {
            ids: NumberedIds::default(),
            tokens: meters.keys().map(of_user).collect(),
            meters,
            reservations: BTreeMap::new(),
            are_due: true,
            busy: HashSet::new(),
            granted: HashMap::new(),
            used: BTreeMap::new(),
            windows: BTreeMap::new(),
            rows_written: 0,
        }
    }

    pub fn tokens_available(&self, user_id: UserId) -> i64 {
        let tokens = self.tokens[&user_id];
        tokens.balance - tokens.reserved
    }

    pub fn tally(&self, meter: &Meter) -> CounterTally {
        self.meters[meter].1.tally
    }

    pub fn reservations(&self) -> impl Iterator<Item = &Hold> {
        self.reservations.values().map(|(reservation, _)| reservation)
    }

    pub fn pending(&self) -> impl Iterator<Item = &Hold> {
        self.reservations().filter(|reservation| reservation.status == HoldStatus::Pending)
    }

    /// Decides the commands as one batch, and writes what it says.
    pub fn run<C: BatchedCommand>(&mut self, commands: &mut [C], lock_mode: LockMode) {
        let keys = commands.iter().enumerate().filter_map(|(place, command)| Some((place, command.idempotency_key()?)));
        let granted = keys.filter_map(|(place, key)| Some((place, self.granted.get(&key)?.clone()))).collect();
        let mut decider = BatchDecider::new(self.locked_rows(), granted, lock_mode, &self.ids);
        for (place, command) in commands.iter_mut().enumerate() {
            command.decide(place, &mut decider);
        }
        let batch = decider.finish();
        self.write(batch);
    }

    fn locked_rows(&self) -> LockedRows {
        let mut rows = LockedRows::default();
        let ids = self.reservations.keys().copied().collect();
        let state = |(reservation, outcome): &(Hold, Option<Decision>)| {
            if self.busy.contains(&reservation.id) {
                return LockResult::Busy;
            }
            let (reservation, outcome) = (reservation.clone(), outcome.clone());
            LockResult::Locked(Box::new(StoredReservation { reservation, is_due: self.are_due, outcome }))
        };
        rows.add_reservations(ids, self.reservations.values().map(state).collect());
        rows.add_meters(self.meters.iter().map(|(meter, (kind, terms))| {
            let tokens_available = self.tokens_available(meter.user_id);
            let entitlement = Locked::under_lock(Entitlement { tokens_available, ..terms.clone() });
            (meter.clone(), MeterState::Locked { kind: *kind, entitlement })
        }));
        let states = self.windows.values().map(|usage| usage.map_or(LockResult::Busy, LockResult::Locked));
        rows.key_counters.add(self.windows.keys().copied().collect(), states.collect());
        rows
    }

    fn write(&mut self, decided: DecidedBatch) {
        let DecidedBatch { counters, entries, reservations, key_changes, key_additions, calls, tokens, counts } =
            decided;
        assert_eq!(counts.len(), counters.len(), "the cache learns every counter that was written");
        self.rows_written += counters.len() + entries.len() + reservations.len() + key_changes.len();
        self.rows_written += key_additions.len() + calls.len() + tokens.len();
        for counter in counters {
            self.meters.get_mut(&counter.key.meter).unwrap().1.tally = counter.tally;
        }
        for entry in entries {
            if entry.event_id.is_some() {
                *self.used.entry(entry.counter.meter.clone()).or_default() += entry.amount;
            }
            if let Some((key, outcome)) = entry.stored {
                let before = self.granted.insert((entry.counter.meter.user_id, key), outcome);
                assert_eq!(before, None, "an idempotency key was granted twice");
            }
        }
        for change in reservations {
            self.reservations.insert(change.reservation.id, (change.reservation, change.outcome));
        }
        for change in key_changes {
            self.windows.insert(change.window, Some(change.usage));
        }
        for change in tokens {
            let tokens = self.tokens.get_mut(&change.user_id).unwrap();
            tokens.reserved += change.reserved;
            tokens.balance -= change.spent;
        }
        for (meter, _, count) in counts {
            assert_eq!(count.tally, self.tally(&meter));
            assert_eq!(count.tokens_available, self.tokens_available(meter.user_id), "{meter:?}");
        }
    }
}
