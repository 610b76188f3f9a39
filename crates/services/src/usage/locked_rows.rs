//! Locked rows: what a batch has locked and read. Each counter is there once, however many commands use it.

use std::collections::{HashMap, HashSet};

use chrono::DateTime;
use domain::api_keys::ApiKeyId;
use domain::entitlements::{Access, Allowance, Decision, Entitlement, Overage, Source};
use domain::features::FeatureKind;
use domain::plans::PlanId;
use domain::usage::{ApiKeyUsage, ApiKeyWindows, CounterTally, Hold, HoldId, Period, PeriodKind, WindowKind};
use domain::users::UserId;
use ports::entitlements::Meter;
use ports::usage::{ApiKeyWindow, CounterKey, CounterState, HoldState, KeyState, MeterState, SessionLock};
use uuid::Uuid;

use super::commands::UsageCommand;

/// A counter under its lock, with the data that decisions need.
pub struct LockedCounter {
    pub key: CounterKey,
    pub kind: FeatureKind,
    pub entitlement: Entitlement,
    /// False for the counter of a reservation that was made in another period.
    pub is_in_force: bool,
    pub changed: bool,
}

pub enum MeterLock {
    Locked(usize),
    Busy,
    UnknownUser,
    UnknownFeature,
}

pub struct LockedHold {
    pub hold: Hold,
    pub is_due: bool,
    pub outcome: Option<Decision>,
    pub changed: bool,
}

pub enum HoldLock {
    Locked(Box<LockedHold>),
    Busy,
    Unknown,
}

/// The counter that a reservation counts on.
pub enum HoldCounter {
    Locked(usize),
    Busy,
    Missing,
}

/// The counter of an API key's window, under its lock.
pub struct KeyCounter {
    pub tally: ApiKeyUsage,
    pub changed: bool,
}

/// What was locked and read.
#[derive(Default)]
pub struct LockedRows {
    pub counters: Vec<LockedCounter>,
    meters: HashMap<Meter, MeterLock>,
    pub holds: HashMap<HoldId, HoldLock>,
    /// Counters of reservations, where they are not those in force: `None` is busy.
    elsewhere: HashMap<CounterKey, Option<usize>>,
    /// Counters of API keys: `None` is busy.
    pub keys: HashMap<ApiKeyWindow, Option<KeyCounter>>,
    /// Conversations that another transaction has locked.
    busy_sessions: HashSet<Uuid>,
}

pub fn counter_of(hold: &Hold) -> CounterKey {
    let meter = Meter { user_id: hold.user_id, feature_id: hold.feature_id.clone() };
    CounterKey { meter, period_kind: hold.period_kind, period_start: hold.period_start }
}

/// The minute and the month of a lineage in which a key's call counts.
pub fn windows_of(user_id: UserId, lineage_id: ApiKeyId, windows: &ApiKeyWindows) -> [ApiKeyWindow; 2] {
    let of = |kind, start| ApiKeyWindow { user_id, api_key_id: lineage_id, kind, start };
    [of(WindowKind::Minute, windows.minute), of(WindowKind::Month, windows.month)]
}

/// The lineages in whose windows a call counts: that of its key and those of the key's makers; none without a key.
pub fn lineages_of(hold: &Hold) -> Vec<ApiKeyId> {
    let named = hold.call.as_ref().map(|call| call.terms.key_lineages.clone()).unwrap_or_default();
    match hold.api_key_id {
        // An earlier release reserved it, under the key itself.
        Some(api_key_id) if named.is_empty() => vec![ApiKeyId(api_key_id)],
        Some(_) => named,
        None => Vec::new(),
    }
}

fn every_window(
    user_id: UserId,
    lineages: impl Iterator<Item = ApiKeyId>,
    windows: &ApiKeyWindows,
) -> Vec<ApiKeyWindow> {
    lineages.flat_map(|lineage_id| windows_of(user_id, lineage_id, windows)).collect()
}

impl LockedRows {
    pub fn add_holds(&mut self, ids: Vec<HoldId>, states: Vec<HoldState>) {
        for (id, state) in ids.into_iter().zip(states) {
            let place = match state {
                HoldState::Locked { hold, is_due, outcome } => {
                    let hold = (*hold).into_inner();
                    HoldLock::Locked(Box::new(LockedHold { hold, is_due, outcome, changed: false }))
                }
                HoldState::Busy => HoldLock::Busy,
                HoldState::Unknown => HoldLock::Unknown,
            };
            self.holds.insert(id, place);
        }
    }

    /// The meters of the reservations, except those that are there already.
    pub fn meters_of_holds(&self) -> impl Iterator<Item = Meter> + '_ {
        self.locked_holds().map(|hold| counter_of(hold).meter).filter(|meter| !self.meters.contains_key(meter))
    }

    fn locked_holds(&self) -> impl Iterator<Item = &Hold> {
        self.holds.values().filter_map(|place| match place {
            HoldLock::Locked(locked) => Some(&locked.hold),
            HoldLock::Busy | HoldLock::Unknown => None,
        })
    }

    pub fn add_meters(&mut self, found: impl IntoIterator<Item = (Meter, MeterState)>) {
        for (meter, state) in found {
            let place = match state {
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
            self.meters.insert(meter, place);
        }
    }

    /// The counter of a `ConsumeCommand`.
    pub fn place_of(&self, meter: &Meter) -> &MeterLock {
        self.meters.get(meter).unwrap_or(&MeterLock::UnknownUser)
    }

    /// The counter of a reservation.
    pub fn place_of_hold(&self, key: &CounterKey) -> HoldCounter {
        if let Some(place) = self.in_force(key) {
            return HoldCounter::Locked(place);
        }
        match (self.meters.get(&key.meter), self.elsewhere.get(key)) {
            (_, Some(Some(place))) => HoldCounter::Locked(*place),
            (Some(MeterLock::Busy), _) | (_, Some(None)) => HoldCounter::Busy,
            _ => HoldCounter::Missing,
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
            .locked_holds()
            .map(counter_of)
            .filter(|key| self.in_force(key).is_none() && !matches!(self.meters.get(&key.meter), Some(MeterLock::Busy)))
            .collect();
        keys.sort_unstable_by(|a, b| (&a.meter, a.period_start).cmp(&(&b.meter, b.period_start)));
        keys.dedup();
        keys
    }

    /// The windows of API keys that the commands count in, sorted.
    pub fn key_windows(&self, commands: &[&UsageCommand]) -> Vec<ApiKeyWindow> {
        let of_demand = |command: &&UsageCommand| match command {
            UsageCommand::Consume(demand) => {
                let budgets = &demand.call.as_ref()?.budgets;
                let MeterLock::Locked(place) = self.place_of(&demand.meter()) else { return None };
                let as_of = self.counters.get(*place)?.entitlement.as_of;
                let lineages = budgets.iter().filter(|_| !budgets.are_unlimited()).map(|budget| budget.lineage_id);
                Some(every_window(demand.user_id, lineages, &ApiKeyWindows::at(as_of)))
            }
            UsageCommand::Hold(_) => None,
        };
        let of_hold = |hold: &Hold| {
            let share = hold.call.as_ref()?.terms.on_key?;
            Some(every_window(hold.user_id, lineages_of(hold).into_iter(), &share.windows))
        };
        let demanded = commands.iter().filter_map(of_demand);
        let mut windows: Vec<_> = demanded.chain(self.locked_holds().filter_map(of_hold)).flatten().collect();
        windows.sort_unstable();
        windows.dedup();
        windows
    }

    pub fn add_keys(&mut self, windows: Vec<ApiKeyWindow>, states: Vec<KeyState>) {
        for (window, state) in windows.into_iter().zip(states) {
            let counter = match state {
                KeyState::Locked(tally) => Some(KeyCounter { tally, changed: false }),
                // A counter that was just created and cannot be locked is busy.
                KeyState::Busy | KeyState::Uncounted => None,
            };
            self.keys.insert(window, counter);
        }
    }

    pub fn add_sessions(&mut self, ids: Vec<Uuid>, states: Vec<SessionLock>) {
        let busy = ids.into_iter().zip(states).filter(|(_, state)| *state == SessionLock::Busy);
        self.busy_sessions.extend(busy.map(|(id, _)| id));
    }

    pub fn is_session_busy(&self, id: Uuid) -> bool {
        self.busy_sessions.contains(&id)
    }

    pub fn add_counters(&mut self, keys: Vec<CounterKey>, states: Vec<CounterState>) {
        for (key, state) in keys.into_iter().zip(states) {
            let place = match state {
                CounterState::Locked(tally) => {
                    let (kind, entitlement) = self.terms(&key.meter);
                    let period = Period {
                        start: key.period_start,
                        ..Period::containing(key.period_kind, key.period_start, key.period_start)
                    };
                    let entitlement = Entitlement { period, tally: *tally, ..entitlement };
                    let key = key.clone();
                    self.counters.push(LockedCounter { key, kind, entitlement, is_in_force: false, changed: false });
                    Some(self.counters.len() - 1)
                }
                CounterState::Busy => None,
                // An orphan: nothing can be done for it, and the integrity findings list it.
                CounterState::Missing => continue,
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
