//! Locked rows: what a batch has locked and read. Each counter is there once, however many commands use it.

use std::collections::{HashMap, HashSet};

use chrono::DateTime;
use domain::entitlements::{Access, Allowance, Decision, Entitlement, Overage, Source};
use domain::features::FeatureKind;
use domain::plans::PlanId;
use domain::usage::{CounterTally, Hold, HoldId, Period, PeriodKind};
use ports::entitlements::Meter;
use ports::store::LockResult;
use ports::usage::{ApiKeyWindow, CounterKey, MeterState, StoredReservation};
use uuid::Uuid;

use super::call_commands::ReserveCallCommand;
use super::key_counters::{KeyCounters, windows_of_call, windows_of_reservation};

/// A counter under its lock, with the data that decisions need.
pub struct LockedCounter {
    pub key: CounterKey,
    pub kind: FeatureKind,
    pub entitlement: Entitlement,
    /// False for the counter of a reservation that was made in another period.
    pub is_in_force: bool,
    pub changed: bool,
}

/// The counter of a meter, as its place in `LockedRows::counters`.
pub enum MeterLock {
    Locked(usize),
    Busy,
    UnknownUser,
    UnknownFeature,
}

pub struct LockedReservation {
    pub reservation: Hold,
    pub is_due: bool,
    pub outcome: Option<Decision>,
    pub changed: bool,
}

/// What was locked and read.
#[derive(Default)]
pub struct LockedRows {
    pub counters: Vec<LockedCounter>,
    meters: HashMap<Meter, MeterLock>,
    pub reservations: HashMap<HoldId, LockResult<Box<LockedReservation>>>,
    /// Counters of reservations, where they are not those in force: `None` is busy.
    elsewhere: HashMap<CounterKey, Option<usize>>,
    pub key_counters: KeyCounters,
    /// Conversations that another transaction has locked.
    busy_sessions: HashSet<Uuid>,
}

pub fn counter_of(reservation: &Hold) -> CounterKey {
    let meter = Meter { user_id: reservation.user_id, feature_id: reservation.feature_id.clone() };
    CounterKey { meter, period_kind: reservation.period_kind, period_start: reservation.period_start }
}

impl LockedRows {
    pub fn add_reservations(&mut self, ids: Vec<HoldId>, results: Vec<LockResult<Box<StoredReservation>>>) {
        for (id, result) in ids.into_iter().zip(results) {
            let lock = match result {
                LockResult::Locked(stored) => {
                    let StoredReservation { reservation, is_due, outcome } = *stored;
                    LockResult::Locked(Box::new(LockedReservation { reservation, is_due, outcome, changed: false }))
                }
                LockResult::Busy => LockResult::Busy,
                LockResult::Missing => LockResult::Missing,
            };
            self.reservations.insert(id, lock);
        }
    }

    /// The meters of the reservations, except those that are there already.
    pub fn meters_of_reservations(&self) -> impl Iterator<Item = Meter> + '_ {
        let meters = self.locked_reservations().map(|reservation| counter_of(reservation).meter);
        meters.filter(|meter| !self.meters.contains_key(meter))
    }

    fn locked_reservations(&self) -> impl Iterator<Item = &Hold> {
        self.reservations.values().filter_map(|lock| match lock {
            LockResult::Locked(locked) => Some(&locked.reservation),
            LockResult::Busy | LockResult::Missing => None,
        })
    }

    pub fn add_meters(&mut self, found: impl IntoIterator<Item = (Meter, MeterState)>) {
        for (meter, state) in found {
            let lock = match state {
                MeterState::Locked { kind, entitlement } => {
                    let entitlement = entitlement.into_inner();
                    let Period { kind: period_kind, start: period_start, .. } = entitlement.period;
                    let key = CounterKey { meter: meter.clone(), period_kind, period_start };
                    self.counters.push(LockedCounter { key, kind, entitlement, is_in_force: true, changed: false });
                    MeterLock::Locked(self.counters.len() - 1)
                }
                // A counter that was just created and cannot be locked is busy.
                MeterState::Busy | MeterState::Uncounted(_) => MeterLock::Busy,
                MeterState::UnknownUser => MeterLock::UnknownUser,
                MeterState::UnknownFeature => MeterLock::UnknownFeature,
            };
            self.meters.insert(meter, lock);
        }
    }

    /// The counter that a meter has now.
    pub fn counter_in_force(&self, meter: &Meter) -> &MeterLock {
        self.meters.get(meter).unwrap_or(&MeterLock::UnknownUser)
    }

    /// The counter of a reservation.
    pub fn counter_of_reservation(&self, key: &CounterKey) -> LockResult<usize> {
        if let Some(place) = self.in_force(key) {
            return LockResult::Locked(place);
        }
        match (self.meters.get(&key.meter), self.elsewhere.get(key)) {
            (_, Some(Some(place))) => LockResult::Locked(*place),
            (Some(MeterLock::Busy), _) | (_, Some(None)) => LockResult::Busy,
            _ => LockResult::Missing,
        }
    }

    fn in_force(&self, key: &CounterKey) -> Option<usize> {
        match self.meters.get(&key.meter) {
            Some(MeterLock::Locked(place)) => {
                self.counters.get(*place).filter(|counter| counter.key == *key).map(|_| *place)
            }
            _ => None,
        }
    }

    /// The counters of reservations that are not locked yet: the period has changed since, or the user is gone.
    pub fn counters_of_other_periods(&self) -> Vec<CounterKey> {
        let mut keys: Vec<_> = self
            .locked_reservations()
            .map(counter_of)
            .filter(|key| self.in_force(key).is_none() && !matches!(self.meters.get(&key.meter), Some(MeterLock::Busy)))
            .collect();
        keys.sort_unstable_by(|a, b| (&a.meter, a.period_start).cmp(&(&b.meter, b.period_start)));
        keys.dedup();
        keys
    }

    /// The windows of API keys that these calls and the locked reservations count in, sorted.
    pub fn key_windows<'a>(&self, calls: impl Iterator<Item = &'a ReserveCallCommand>) -> Vec<ApiKeyWindow> {
        let of_call = |command: &ReserveCallCommand| {
            let MeterLock::Locked(place) = self.counter_in_force(&command.call_meter()) else { return Vec::new() };
            let counter = self.counters.get(*place);
            counter.map(|counter| windows_of_call(command, counter.entitlement.as_of)).unwrap_or_default()
        };
        let of_reservations = self.locked_reservations().flat_map(windows_of_reservation);
        let mut windows: Vec<_> = calls.flat_map(of_call).chain(of_reservations).collect();
        windows.sort_unstable();
        windows.dedup();
        windows
    }

    pub fn add_sessions(&mut self, ids: Vec<Uuid>, states: Vec<LockResult<()>>) {
        let busy = ids.into_iter().zip(states).filter(|(_, state)| *state == LockResult::Busy);
        self.busy_sessions.extend(busy.map(|(id, _)| id));
    }

    pub fn is_session_busy(&self, id: Uuid) -> bool {
        self.busy_sessions.contains(&id)
    }

    pub fn add_counters(&mut self, keys: Vec<CounterKey>, states: Vec<LockResult<CounterTally>>) {
        for (key, state) in keys.into_iter().zip(states) {
            let place = match state {
                LockResult::Locked(tally) => {
                    let (kind, entitlement) = self.terms(&key.meter);
                    let period = Period {
                        start: key.period_start,
                        ..Period::containing(key.period_kind, key.period_start, key.period_start)
                    };
                    let entitlement = Entitlement { period, tally, ..entitlement };
                    let key = key.clone();
                    self.counters.push(LockedCounter { key, kind, entitlement, is_in_force: false, changed: false });
                    Some(self.counters.len() - 1)
                }
                LockResult::Busy => None,
                // An orphan: nothing can be done for it, and the integrity findings list it.
                LockResult::Missing => continue,
            };
            self.elsewhere.insert(key, place);
        }
    }

    /// The current terms of a meter, for a counter of another period of it.
    fn terms(&self, meter: &Meter) -> (FeatureKind, Entitlement) {
        if let Some(MeterLock::Locked(place)) = self.meters.get(meter)
            && let Some(counter) = self.counters.get(*place)
        {
            return (counter.kind, counter.entitlement.clone());
        }
        // The user or the feature is gone: no limit applies, and no tokens are left.
        let start = DateTime::UNIX_EPOCH;
        let entitlement = Entitlement {
            feature_id: meter.feature_id.clone(),
            plan_id: PlanId::free(),
            source: Source::Plan,
            access: Access::NotInPlan,
            allowance: Allowance::Unlimited,
            overage: Overage::Block,
            period: Period::containing(PeriodKind::Lifetime, start, start),
            tally: CounterTally::default(),
            tokens_available: 0,
            as_of: start,
        };
        (FeatureKind::Metered, entitlement)
    }
}
