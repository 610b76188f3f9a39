//! Ground: what a batch has locked and read, each counter once, whichever commands rest on it.

use std::collections::{HashMap, HashSet};

use chrono::DateTime;
use domain::api_keys::ApiKeyId;
use domain::entitlements::{Access, Allowance, Decision, Entitlement, Overage, Source};
use domain::features::FeatureKind;
use domain::plans::PlanId;
use domain::usage::{Hold, HoldId, KeyTally, KeyWindows, Period, PeriodKind, Tally, WindowKind};
use domain::users::UserId;
use ports::entitlements::Meter;
use ports::usage::{CounterKey, CounterState, HoldState, KeyState, KeyWindow, MeterState, SessionState};
use uuid::Uuid;

use super::commands::Command;

/// A counter under its lock, with what it is decided by.
pub struct Counter {
    pub key: CounterKey,
    pub kind: FeatureKind,
    pub entitlement: Entitlement,
    /// Not so for a hold that was made in another period.
    pub is_in_force: bool,
    pub changed: bool,
}

pub enum MeterPlace {
    At(usize),
    Held,
    UnknownUser,
    UnknownFeature,
}

pub struct LockedHold {
    pub hold: Hold,
    pub is_due: bool,
    pub outcome: Option<Decision>,
    pub changed: bool,
}

pub enum HoldPlace {
    Locked(Box<LockedHold>),
    Held,
    Unknown,
}

/// The counter that a hold lies on.
pub enum HoldCounter {
    At(usize),
    Held,
    Missing,
}

/// The counter of a key's window, under its lock.
pub struct KeyCounter {
    pub tally: KeyTally,
    pub changed: bool,
}

/// What was locked and read.
#[derive(Default)]
pub struct Ground {
    pub counters: Vec<Counter>,
    meters: HashMap<Meter, MeterPlace>,
    pub holds: HashMap<HoldId, HoldPlace>,
    /// Counters of holds, where they are not those in force: `None` is held by somebody else.
    elsewhere: HashMap<CounterKey, Option<usize>>,
    /// Counters of keys: `None` is held by somebody else.
    pub keys: HashMap<KeyWindow, Option<KeyCounter>>,
    /// Conversations that another transaction has locked.
    busy_sessions: HashSet<Uuid>,
}

pub fn counter_of(hold: &Hold) -> CounterKey {
    let meter = Meter { user_id: hold.user_id, feature_id: hold.feature_id.clone() };
    CounterKey { meter, period_kind: hold.period_kind, period_start: hold.period_start }
}

/// The minute and the month of a lineage in which a key's call counts.
pub fn windows_of(user_id: UserId, lineage_id: ApiKeyId, windows: &KeyWindows) -> [KeyWindow; 2] {
    let of = |kind, start| KeyWindow { user_id, api_key_id: lineage_id, kind, start };
    [of(WindowKind::Minute, windows.minute), of(WindowKind::Month, windows.month)]
}

/// The lineages in whose windows a call counts: its key's and those of the key's makers; none where no key made it.
pub fn lineages_of(hold: &Hold) -> Vec<ApiKeyId> {
    let named = hold.call.as_ref().map(|call| call.terms.key_lineages.clone()).unwrap_or_default();
    match hold.api_key_id {
        // An earlier release held it, under the key itself.
        Some(api_key_id) if named.is_empty() => vec![ApiKeyId(api_key_id)],
        Some(_) => named,
        None => Vec::new(),
    }
}

fn every_window(user_id: UserId, lineages: impl Iterator<Item = ApiKeyId>, windows: &KeyWindows) -> Vec<KeyWindow> {
    lineages.flat_map(|lineage_id| windows_of(user_id, lineage_id, windows)).collect()
}

impl Ground {
    pub fn add_holds(&mut self, ids: Vec<HoldId>, states: Vec<HoldState>) {
        for (id, state) in ids.into_iter().zip(states) {
            let place = match state {
                HoldState::Locked { hold, is_due, outcome } => {
                    let hold = (*hold).into_inner();
                    HoldPlace::Locked(Box::new(LockedHold { hold, is_due, outcome, changed: false }))
                }
                HoldState::Held => HoldPlace::Held,
                HoldState::Unknown => HoldPlace::Unknown,
            };
            self.holds.insert(id, place);
        }
    }

    /// The meters of the holds, as far as they are not there yet.
    pub fn meters_of_holds(&self) -> impl Iterator<Item = Meter> + '_ {
        self.locked_holds().map(|hold| counter_of(hold).meter).filter(|meter| !self.meters.contains_key(meter))
    }

    fn locked_holds(&self) -> impl Iterator<Item = &Hold> {
        self.holds.values().filter_map(|place| match place {
            HoldPlace::Locked(locked) => Some(&locked.hold),
            HoldPlace::Held | HoldPlace::Unknown => None,
        })
    }

    pub fn add_meters(&mut self, found: impl IntoIterator<Item = (Meter, MeterState)>) {
        for (meter, state) in found {
            let place = match state {
                MeterState::Locked { kind, entitlement } => {
                    let entitlement = entitlement.into_inner();
                    let Period { kind: period_kind, start: period_start, .. } = entitlement.period;
                    let key = CounterKey { meter: meter.clone(), period_kind, period_start };
                    self.counters.push(Counter { key, kind, entitlement, is_in_force: true, changed: false });
                    MeterPlace::At(self.counters.len() - 1)
                }
                // A counter that was made a moment ago and cannot be locked is being used by somebody else already.
                MeterState::Held | MeterState::Uncounted(_) => MeterPlace::Held,
                MeterState::UnknownUser => MeterPlace::UnknownUser,
                MeterState::UnknownFeature => MeterPlace::UnknownFeature,
            };
            self.meters.insert(meter, place);
        }
    }

    /// The place of a demand's counter.
    pub fn place_of(&self, meter: &Meter) -> &MeterPlace {
        self.meters.get(meter).unwrap_or(&MeterPlace::UnknownUser)
    }

    /// The place of a hold's counter.
    pub fn place_of_hold(&self, key: &CounterKey) -> HoldCounter {
        if let Some(place) = self.in_force(key) {
            return HoldCounter::At(place);
        }
        match (self.meters.get(&key.meter), self.elsewhere.get(key)) {
            (_, Some(Some(place))) => HoldCounter::At(*place),
            (Some(MeterPlace::Held), _) | (_, Some(None)) => HoldCounter::Held,
            _ => HoldCounter::Missing,
        }
    }

    fn in_force(&self, key: &CounterKey) -> Option<usize> {
        match self.meters.get(&key.meter) {
            Some(MeterPlace::At(place)) => {
                self.counters.get(*place).filter(|counter| counter.key == *key).map(|_| *place)
            }
            _ => None,
        }
    }

    /// Which counters of the holds are not locked yet: the period has turned since, or the user is gone.
    pub fn counters_of_other_periods(&self) -> Vec<CounterKey> {
        let mut keys: Vec<_> = self
            .locked_holds()
            .map(counter_of)
            .filter(|key| {
                self.in_force(key).is_none() && !matches!(self.meters.get(&key.meter), Some(MeterPlace::Held))
            })
            .collect();
        keys.sort_unstable_by(|a, b| (&a.meter, a.period_start).cmp(&(&b.meter, b.period_start)));
        keys.dedup();
        keys
    }

    /// The windows of keys that the commands count in, sorted.
    pub fn key_windows(&self, commands: &[&Command]) -> Vec<KeyWindow> {
        let of_demand = |command: &&Command| match command {
            Command::Demand(demand) => {
                let budgets = &demand.call.as_ref()?.budgets;
                let MeterPlace::At(place) = self.place_of(&demand.meter()) else { return None };
                let as_of = self.counters.get(*place)?.entitlement.as_of;
                let lineages = budgets.iter().filter(|_| !budgets.are_unlimited()).map(|budget| budget.lineage_id);
                Some(every_window(demand.user_id, lineages, &KeyWindows::at(as_of)))
            }
            Command::Hold(_) => None,
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

    pub fn add_keys(&mut self, windows: Vec<KeyWindow>, states: Vec<KeyState>) {
        for (window, state) in windows.into_iter().zip(states) {
            let counter = match state {
                KeyState::Locked(tally) => Some(KeyCounter { tally, changed: false }),
                // What was made a moment ago and cannot be locked is used by somebody else already.
                KeyState::Held | KeyState::Uncounted => None,
            };
            self.keys.insert(window, counter);
        }
    }

    pub fn add_sessions(&mut self, ids: Vec<Uuid>, states: Vec<SessionState>) {
        let busy = ids.into_iter().zip(states).filter(|(_, state)| *state == SessionState::Busy);
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
                    self.counters.push(Counter { key, kind, entitlement, is_in_force: false, changed: false });
                    Some(self.counters.len() - 1)
                }
                CounterState::Held => None,
                // An orphan: nothing can be done for it, and the integrity findings name it.
                CounterState::Missing => continue,
            };
            self.elsewhere.insert(key, place);
        }
    }

    /// What a meter is decided by now, for a counter of another period of it.
    fn terms(&self, meter: &Meter) -> (FeatureKind, Entitlement) {
        if let Some(MeterPlace::At(place)) = self.meters.get(meter)
            && let Some(counter) = self.counters.get(*place)
        {
            return (counter.kind, counter.entitlement.clone());
        }
        // The user or the feature is gone: no limit holds any more, and no tokens are left.
        let start = DateTime::UNIX_EPOCH;
        let entitlement = Entitlement {
            feature_id: meter.feature_id.clone(),
            plan_id: PlanId::free(),
            source: Source::Plan,
            access: Access::NotInPlan,
            allowance: Allowance::Unlimited,
            overage: Overage::Block,
            period: Period::containing(PeriodKind::Lifetime, start, start),
            tally: Tally::default(),
            tokens_available: 0,
            as_of: start,
        };
        (FeatureKind::Metered, entitlement)
    }
}
