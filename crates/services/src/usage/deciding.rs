//! Deciding: the state between the reading of a batch and its writing, in memory alone.
//!
//! Each command is decided by the pure rules of `domain::usage` on what the one before it left. A key that was granted
//! earlier in the same batch is answered like one that was granted long ago.

use std::collections::HashMap;

use domain::entitlements::{Count, Decision, Entitlement, decide};
use domain::features::FeatureKind;
use domain::idempotency::IdempotencyKey;
use domain::usage::{
    Ending, Hold, HoldId, HoldRefusal, HoldStatus, Holding, Period, consume, expire, extend, extending_needs_tokens,
    hold, needs_tokens, release, settle,
};
use domain::users::UserId;
use ports::entitlements::Meter;
use ports::randomness::Randomness;
use ports::usage::{BatchRecord, CounterChange, CounterKey, Entry, HoldChange, KeptHold, KeptOutcome, TokenChange};

use super::commands::{
    Changed, Command, Course, Demand, Demanded, Fate, HoldAction, HoldCommand, Outcome, UsageError, Whose, ends_at,
};
use super::ground::{Counter, Ground, HoldCounter, HoldPlace, LockedHold, MeterPlace, counter_of};

/// What a batch came to.
pub struct Decided {
    pub record: BatchRecord,
    pub tokens: Vec<TokenChange>,
    pub counts: Vec<(Meter, Period, Count)>,
}

pub struct Deciding<'a> {
    ground: Ground,
    kept: HashMap<usize, KeptOutcome>,
    /// What this batch granted, by user and key.
    granted: HashMap<(UserId, IdempotencyKey), KeptOutcome>,
    /// What each user has left to spend: one balance, whatever it is spent on.
    tokens: HashMap<UserId, i64>,
    entries: Vec<Entry>,
    made: Vec<HoldChange>,
    moved: Vec<TokenChange>,
    course: Course,
    randomness: &'a dyn Randomness,
}

impl<'a> Deciding<'a> {
    pub fn new(
        ground: Ground,
        kept: HashMap<usize, KeptOutcome>,
        course: Course,
        randomness: &'a dyn Randomness,
    ) -> Self {
        let balance = |counter: &Counter| (counter.key.meter.user_id, counter.entitlement.tokens_available);
        let tokens = ground.counters.iter().map(balance).collect();
        let (granted, entries, made, moved) = (HashMap::new(), Vec::new(), Vec::new(), Vec::new());
        Self { ground, kept, granted, tokens, entries, made, moved, course, randomness }
    }

    pub fn decide(&mut self, place: usize, command: &Command) -> Fate {
        match command {
            Command::Demand(demand) => self.demand(place, demand),
            Command::Hold(command) => self.change_hold(command),
        }
    }

    /// All that is to be written, and how the counters in force stand once it is.
    pub fn finish(self) -> Decided {
        let Self { ground, made: mut holds, entries, tokens, moved, .. } = self;
        let Ground { counters, holds: locked, .. } = ground;
        let counters: Vec<_> = counters.into_iter().filter(|counter| counter.changed).collect();
        let counts = counters.iter().filter(|counter| counter.is_in_force).map(|counter| {
            let Counter { key, entitlement, .. } = counter;
            let tokens_available = tokens.get(&key.meter.user_id).copied().unwrap_or_default();
            let count = Count { tally: entitlement.tally, tokens_available, as_of: entitlement.as_of };
            (key.meter.clone(), entitlement.period, count)
        });
        let counts = counts.collect();
        let changed = |counter: Counter| CounterChange { key: counter.key, tally: counter.entitlement.tally };
        let counters = counters.into_iter().map(changed).collect();
        holds.extend(locked.into_values().filter_map(|place| match place {
            HoldPlace::Locked(locked) if locked.changed => {
                Some(HoldChange { hold: locked.hold, key: None, outcome: locked.outcome })
            }
            _ => None,
        }));
        Decided { record: BatchRecord { counters, entries, holds }, tokens: moved, counts }
    }

    fn demand(&mut self, place: usize, demand: &Demand) -> Fate {
        let first = self.kept.get(&place).or_else(|| self.granted.get(&(demand.user_id, demand.key.clone())));
        if let Some(first) = first {
            return Fate::Settled(again(first, demand));
        }
        let counter = match self.ground.place_of(&demand.meter()) {
            MeterPlace::At(place) => {
                let place = *place;
                self.ground.counters.get_mut(place)
            }
            MeterPlace::Held => return Fate::Held,
            MeterPlace::UnknownFeature => {
                return Fate::Settled(Err(UsageError::UnknownFeature(demand.feature_id.clone())));
            }
            MeterPlace::UnknownUser => None,
        };
        let Some(counter) = counter else { return Fate::Settled(Err(UsageError::UnknownUser)) };
        if counter.kind == FeatureKind::Boolean && demand.amount != 1 {
            return Fate::Settled(Err(UsageError::NotMetered(demand.feature_id.clone())));
        }
        let balance = self.tokens.entry(demand.user_id).or_default();
        counter.entitlement.tokens_available = *balance;
        if !matches!(self.course, Course::Paying(_)) && needs_tokens(&counter.entitlement, demand.amount) {
            return Fate::NeedsTokens(demand.user_id);
        }
        let (decision, tokens, overage) = if demand.hold_for.is_some() {
            let holding = hold(&mut counter.entitlement, demand.amount);
            (holding.decision, holding.tokens, 0)
        } else {
            let consumption = consume(&mut counter.entitlement, demand.amount);
            (consumption.decision, consumption.overage, consumption.overage)
        };
        *balance = counter.entitlement.tokens_available;
        if !decision.allowed {
            return Fate::Settled(Ok(Outcome::Demanded(Demanded { decision, hold: None, replayed: false })));
        }
        counter.changed = true;
        let key = counter.key.clone();
        let made = demand
            .hold_for
            .map(|ttl| KeptHold { id: HoldId(self.randomness.new_id()), expires_at: ends_at(decision.as_of, ttl) });
        let outcome = KeptOutcome { amount: demand.amount, decision: decision.clone(), hold: made };
        if let Some(made) = made {
            self.made.push(HoldChange {
                hold: pending(&key, demand, made, tokens),
                key: Some(demand.key.clone()),
                outcome: None,
            });
        }
        if tokens > 0 {
            let (held, spent) = if made.is_some() { (tokens, 0) } else { (0, tokens) };
            self.move_tokens(&key.meter, held, spent, made.map(|made| made.id));
        }
        self.granted.insert((demand.user_id, demand.key.clone()), outcome.clone());
        self.entries.push(Entry {
            counter: key,
            amount: demand.amount,
            overage,
            api_key_id: demand.api_key_id,
            hold_id: made.map(|made| made.id),
            event_id: made.is_none().then(|| self.randomness.new_id()),
            kept: Some((demand.key.clone(), outcome)),
        });
        Fate::Settled(Ok(Outcome::Demanded(Demanded { decision, hold: made, replayed: false })))
    }

    fn change_hold(&mut self, command: &HoldCommand) -> Fate {
        let unknown = Fate::Settled(Err(UsageError::UnknownHold));
        let (user_id, key) = match self.ground.holds.get(&command.hold_id) {
            Some(HoldPlace::Locked(locked)) => (locked.hold.user_id, counter_of(&locked.hold)),
            Some(HoldPlace::Held) => return Fate::Held,
            Some(HoldPlace::Unknown) | None => return unknown,
        };
        if matches!(command.whose, Whose::Only(owner) if owner != user_id) {
            return unknown;
        }
        let place = match self.ground.place_of_hold(&key) {
            HoldCounter::At(place) => place,
            HoldCounter::Held => return Fate::Held,
            HoldCounter::Missing => {
                let fault = format!("the counter of the hold {} is missing", command.hold_id.0);
                return Fate::Settled(Err(UsageError::Fault(fault)));
            }
        };
        let Ground { counters, holds, .. } = &mut self.ground;
        let (Some(counter), Some(HoldPlace::Locked(locked))) =
            (counters.get_mut(place), holds.get_mut(&command.hold_id))
        else {
            return unknown;
        };
        let balance = self.tokens.entry(user_id).or_default();
        counter.entitlement.tokens_available = *balance;
        let entitlement = &mut counter.entitlement;
        if let Some(decision) = repeated(locked, entitlement, command.action) {
            return changed(&locked.hold, decision, true);
        }
        if !matches!(self.course, Course::Paying(_)) && moves_tokens(&locked.hold, entitlement, command.action) {
            return Fate::NeedsTokens(user_id);
        }
        let before = (locked.hold.clone(), entitlement.tally);
        let effect = match act(&mut locked.hold, entitlement, command.action) {
            Ok(effect) => effect,
            Err(refusal) => return Fate::Settled(Err(UsageError::of_hold(refusal, &locked.hold))),
        };
        *balance = entitlement.tokens_available;
        counter.changed |= entitlement.tally != before.1;
        locked.changed |= locked.hold != before.0;
        if matches!(locked.hold.status, HoldStatus::Settled | HoldStatus::Released) {
            locked.outcome = Some(effect.decision.clone());
        }
        let answer = changed(&locked.hold, effect.decision, false);
        if effect.used > 0 {
            self.entries.push(Entry {
                counter: key.clone(),
                amount: effect.used,
                overage: effect.overage,
                api_key_id: locked.hold.api_key_id,
                hold_id: Some(command.hold_id),
                event_id: Some(self.randomness.new_id()),
                kept: None,
            });
        }
        if effect.tokens_held != 0 || effect.tokens_spent > 0 {
            self.move_tokens(&key.meter, effect.tokens_held, effect.tokens_spent, Some(command.hold_id));
        }
        answer
    }

    fn move_tokens(&mut self, meter: &Meter, held: i64, spent: i64, hold_id: Option<HoldId>) {
        let Meter { user_id, feature_id } = meter.clone();
        self.moved.push(TokenChange { user_id, feature_id, held, spent, hold_id });
    }
}

/// The first outcome again, if it is the same that is asked for.
fn again(first: &KeptOutcome, demand: &Demand) -> Result<Outcome, UsageError> {
    let held_for = first.hold.map(|hold| hold.expires_at - first.decision.as_of);
    let same =
        first.decision.feature_id == demand.feature_id && first.amount == demand.amount && held_for == demand.hold_for;
    let again = || Demanded { decision: first.decision.clone(), hold: first.hold, replayed: true };
    if same { Ok(Outcome::Demanded(again())) } else { Err(UsageError::KeyReused) }
}

/// The numbers of the first answer, where the same was done to the hold before.
fn repeated(locked: &LockedHold, entitlement: &Entitlement, action: HoldAction) -> Option<Decision> {
    let hold = &locked.hold;
    let is_done = match action {
        HoldAction::Settle(used) => hold.status == HoldStatus::Settled && hold.settled == Some(used),
        HoldAction::Release => hold.status == HoldStatus::Released,
        HoldAction::Expire => hold.status != HoldStatus::Pending || !locked.is_due,
        HoldAction::Extend { .. } => false,
    };
    is_done.then(|| locked.outcome.clone().unwrap_or_else(|| decide(entitlement, 1)))
}

/// What an action on a hold came to, beside the hold and its counter.
struct Effect {
    decision: Decision,
    used: i64,
    overage: i64,
    tokens_held: i64,
    tokens_spent: i64,
}

fn act(held: &mut Hold, entitlement: &mut Entitlement, action: HoldAction) -> Result<Effect, HoldRefusal> {
    let ending = match action {
        HoldAction::Settle(used) => settle(held, entitlement, used)?,
        HoldAction::Release => release(held, entitlement)?,
        HoldAction::Expire => expire(held, entitlement)?,
        HoldAction::Extend { amount, ttl } => {
            let Holding { decision, tokens } = extend(held, entitlement, amount.unwrap_or(held.amount))?;
            if decision.allowed {
                held.expires_at = held.expires_at.max(ends_at(entitlement.as_of, ttl));
            }
            return Ok(Effect { decision, used: 0, overage: 0, tokens_held: tokens, tokens_spent: 0 });
        }
    };
    let Ending { decision, used, overage, tokens_freed, tokens_spent } = ending;
    Ok(Effect { decision, used, overage, tokens_held: -tokens_freed, tokens_spent })
}

/// Whether the action would touch the user's tokens, so that the balance must be under its lock.
fn moves_tokens(held: &Hold, entitlement: &Entitlement, action: HoldAction) -> bool {
    match action {
        HoldAction::Settle(used) => held.moves_tokens(entitlement, used),
        HoldAction::Release | HoldAction::Expire => held.moves_tokens(entitlement, 0),
        HoldAction::Extend { amount, .. } => {
            amount.is_some_and(|amount| extending_needs_tokens(held, entitlement, amount))
        }
    }
}

fn pending(key: &CounterKey, demand: &Demand, made: KeptHold, tokens: i64) -> Hold {
    Hold {
        id: made.id,
        user_id: demand.user_id,
        feature_id: demand.feature_id.clone(),
        period_kind: key.period_kind,
        period_start: key.period_start,
        amount: demand.amount,
        tokens,
        status: HoldStatus::Pending,
        settled: None,
        overage: 0,
        expires_at: made.expires_at,
        api_key_id: demand.api_key_id,
    }
}

fn changed(hold: &Hold, decision: Decision, replayed: bool) -> Fate {
    Fate::Settled(Ok(Outcome::Changed(Changed { hold: hold.clone(), decision, replayed })))
}
