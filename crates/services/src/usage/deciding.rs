//! Deciding: the state between the reading of a batch and its writing, in memory alone.
//!
//! Each command is decided by the pure rules of `domain::usage` on what the one before it left. A key that was granted
//! earlier in the same batch is answered like one that was granted long ago.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use domain::api_keys::ApiKeyId;
use domain::entitlements::Count;
use domain::features::FeatureKind;
use domain::idempotency::IdempotencyKey;
use domain::usage::{
    Consumption, Hold, HoldId, HoldStatus, Holding, KeyShare, KeyTally, KeyWindows, Period, consume, hold, hold_call,
    needs_tokens,
};
use domain::users::UserId;
use ports::entitlements::Meter;
use ports::randomness::Randomness;
use ports::usage::{
    BatchRecord, CallRecord, CounterChange, CounterKey, Entry, HoldChange, KeptHold, KeptOutcome, KeyChange, KeyUse,
    KeyWindow, TokenChange,
};

use super::commands::{
    Command, Course, Demand, Demanded, Fate, HoldAction, HoldCommand, Outcome, TokensAtHand, UsageError, Whose, ends_at,
};
use super::ground::{Counter, Ground, HoldCounter, HoldPlace, MeterPlace, counter_of, lineages_of, windows_of};
use super::holding::{
    Effect, act, changed, growth_on_key, is_held, moves_tokens, no_room, pending, repeated, room_beside, share_of,
    share_of_key, used_of,
};

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
    calls: Vec<CallRecord>,
    /// What calls by keys without limits used, by window, in the order in which the rows are written.
    key_uses: BTreeMap<KeyWindow, KeyUse>,
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
        let (calls, key_uses) = (Vec::new(), BTreeMap::new());
        Self { ground, kept, granted, tokens, entries, made, moved, calls, key_uses, course, randomness }
    }

    pub fn decide(&mut self, place: usize, command: &Command) -> Fate {
        match command {
            Command::Demand(demand) => self.demand(place, demand),
            Command::Hold(_) if command.session_id().is_some_and(|id| self.ground.is_session_busy(id)) => Fate::Held,
            Command::Hold(command) => self.change_hold(command),
        }
    }

    /// All that is to be written, and how the counters in force stand once it is.
    pub fn finish(self) -> Decided {
        let Self { ground, made: mut holds, entries, tokens, moved, calls, key_uses, .. } = self;
        let Ground { counters, holds: locked, keys, .. } = ground;
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
        let keys = keys.into_iter().filter_map(|(window, counter)| {
            counter.filter(|counter| counter.changed).map(|counter| KeyChange { window, tally: counter.tally })
        });
        let key_uses = key_uses.into_values().collect();
        let record = BatchRecord { counters, entries, holds, keys: keys.collect(), key_uses, calls };
        Decided { record, tokens: moved, counts }
    }

    fn demand(&mut self, place: usize, demand: &Demand) -> Fate {
        let first = self.kept.get(&place).or_else(|| self.granted.get(&(demand.user_id, demand.key.clone())));
        if let Some(first) = first {
            return Fate::Settled(again(first, demand));
        }
        let counter = match self.ground.place_of(&demand.meter()) {
            MeterPlace::At(place) => *place,
            MeterPlace::Held => return Fate::Held,
            MeterPlace::UnknownFeature => {
                return Fate::Settled(Err(UsageError::UnknownFeature(demand.feature_id.clone())));
            }
            MeterPlace::UnknownUser => return Fate::Settled(Err(UsageError::UnknownUser)),
        };
        self.count(demand, counter).unwrap_or_else(|fate| *fate)
    }

    /// Decides on the counter at `place`. `Err` says why nothing was counted.
    fn count(&mut self, demand: &Demand, place: usize) -> Result<Fate, Box<Fate>> {
        let unknown = || Box::new(Fate::Settled(Err(UsageError::UnknownUser)));
        let counter = self.ground.counters.get_mut(place).ok_or_else(unknown)?;
        if counter.kind == FeatureKind::Boolean && demand.amount != 1 {
            return Err(Box::new(Fate::Settled(Err(UsageError::NotMetered(demand.feature_id.clone())))));
        }
        let balance = self.tokens.entry(demand.user_id).or_default();
        counter.entitlement.tokens_available = *balance;
        if !matches!(self.course, Course::Paying(_)) && needs_tokens(&counter.entitlement, demand.amount) {
            return Err(Box::new(Fate::NeedsTokens(demand.user_id)));
        }
        let share = match &demand.call {
            Some(call) => share_of_key(&self.ground.keys, demand, call, counter.entitlement.as_of)?,
            None => None,
        };
        let (holding, overage) = match (&demand.call, demand.hold_for) {
            (Some(call), _) => (hold_call(&mut counter.entitlement, call.tokens), 0),
            (None, Some(_)) => (hold(&mut counter.entitlement, demand.amount), 0),
            (None, None) => {
                let Consumption { decision, overage } = consume(&mut counter.entitlement, demand.amount);
                (Holding { decision, beyond: overage, tokens: overage }, overage)
            }
        };
        *balance = counter.entitlement.tokens_available;
        let (key_tokens, key_cost) = match (&demand.call, &share) {
            (Some(call), Some(share)) => room_beside(&self.ground.keys, demand, call, share),
            _ => (None, None),
        };
        let at_hand = TokensAtHand { held: holding.tokens, available: *balance, key_tokens, key_cost };
        counter.changed |= holding.decision.allowed;
        let key = counter.key.clone();
        let hold = self.book(demand, key, &holding, overage, share);
        let demanded = Demanded { decision: holding.decision, hold, tokens: at_hand, replayed: false };
        Ok(Fate::Settled(Ok(Outcome::Demanded(demanded))))
    }

    /// What is to be written for a demand that was decided, and the hold where one was made; nothing for a refusal.
    fn book(
        &mut self,
        demand: &Demand,
        key: CounterKey,
        holding: &Holding,
        overage: i64,
        share: Option<KeyShare>,
    ) -> Option<KeptHold> {
        let Holding { decision, beyond, tokens } = holding;
        if !decision.allowed {
            return None;
        }
        let given = demand.call.as_ref().and_then(|call| call.hold_id);
        let made = demand.hold_for.map(|ttl| KeptHold {
            id: given.unwrap_or_else(|| HoldId(self.randomness.new_id())),
            expires_at: ends_at(decision.as_of, ttl),
        });
        if *tokens > 0 {
            let (held, spent) = if made.is_some() { (*tokens, 0) } else { (0, *tokens) };
            self.move_tokens(&key.meter, held, spent, made.map(|made| made.id));
        }
        if let Some(made) = made {
            let mut hold = pending(&key, demand, made, *beyond, *tokens);
            if let (Some(call), Some(asked)) = (&mut hold.call, &demand.call) {
                call.terms.began_at = decision.as_of;
                call.terms.on_key = share;
                call.terms.key_lineages = asked.budgets.iter().map(|budget| budget.lineage_id).collect();
            }
            let key = demand.call.is_none().then(|| demand.key.clone());
            self.made.push(HoldChange { hold, key, outcome: None });
        }
        if let (Some(share), Some(call)) = (share, &demand.call) {
            let lineages: Vec<_> = call.budgets.iter().map(|budget| budget.lineage_id).collect();
            self.on_key(demand.user_id, &lineages, &share, KeyTally::hold);
        }
        if demand.call.is_none() {
            let outcome = KeptOutcome { amount: demand.amount, decision: decision.clone(), hold: made };
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
        }
        made
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
        self.act(command, key, place).unwrap_or(unknown)
    }

    /// Does it to the hold, on the counter at `place`. `None` where there is no such hold for this action.
    fn act(&mut self, command: &HoldCommand, key: CounterKey, place: usize) -> Option<Fate> {
        let user_id = key.meter.user_id;
        let Ground { counters, holds, keys, .. } = &mut self.ground;
        let counter = counters.get_mut(place)?;
        let Some(HoldPlace::Locked(locked)) = holds.get_mut(&command.hold_id) else { return None };
        if command.action.is_of_call().is_some_and(|is| is != locked.hold.call.is_some()) {
            return None;
        }
        let balance = self.tokens.entry(user_id).or_default();
        counter.entitlement.tokens_available = *balance;
        let entitlement = &mut counter.entitlement;
        if let Some(decision) = repeated(locked, entitlement, &command.action) {
            return Some(changed(&locked.hold, decision, 0, true));
        }
        if !matches!(self.course, Course::Paying(_)) && moves_tokens(&locked.hold, entitlement, &command.action) {
            return Some(Fate::NeedsTokens(user_id));
        }
        if is_held(keys, &locked.hold) {
            return Some(Fate::Held);
        }
        let Ok(more) = growth_on_key(keys, &locked.hold, &command.action) else {
            return Some(changed(&locked.hold, no_room(entitlement), 0, false));
        };
        let before = (locked.hold.clone(), entitlement.tally);
        let effect = match act(&mut locked.hold, entitlement, &command.action) {
            Ok(effect) => effect,
            Err(refusal) => return Some(Fate::Settled(Err(UsageError::of_hold(refusal, &locked.hold)))),
        };
        *balance = entitlement.tokens_available;
        if let (Some(more), true, Some(call)) = (more, effect.decision.allowed, &mut locked.hold.call) {
            call.terms.on_key = call.terms.on_key.map(|share| share.with(&more));
        }
        counter.changed |= entitlement.tally != before.1;
        locked.changed |= locked.hold != before.0;
        if matches!(locked.hold.status, HoldStatus::Settled | HoldStatus::Released) {
            locked.outcome = Some(effect.decision.clone());
        }
        let hold = locked.hold.clone();
        self.book_change(&command.action, key, &before.0, &hold, &effect);
        Some(changed(&hold, effect.decision, effect.tokens_spent, false))
    }

    /// What is to be written for a hold that was changed.
    fn book_change(&mut self, action: &HoldAction, key: CounterKey, before: &Hold, hold: &Hold, effect: &Effect) {
        let (user_id, api_key_id) = (hold.user_id, hold.api_key_id);
        if effect.tokens_held != 0 || effect.tokens_spent > 0 {
            self.move_tokens(&key.meter, effect.tokens_held, effect.tokens_spent, Some(hold.id));
        }
        if effect.used > 0 {
            self.entries.push(Entry {
                counter: key,
                amount: effect.used,
                overage: effect.overage,
                api_key_id,
                hold_id: Some(hold.id),
                event_id: Some(self.randomness.new_id()),
                kept: None,
            });
        }
        if let HoldAction::SettleCall(result) = action {
            let (result, unpaid_tokens) = ((**result).clone(), effect.tokens_unpaid);
            self.calls.push(CallRecord { hold_id: hold.id, user_id, api_key_id, result, unpaid_tokens });
        }
        self.book_on_key(before, hold, used_of(action));
    }

    /// What a hold that was changed counts in the windows of its key's budgets.
    fn book_on_key(&mut self, before: &Hold, hold: &Hold, used: Option<(i64, i64)>) {
        let (user_id, lineages) = (hold.user_id, lineages_of(hold));
        let (Some(held_before), Some(share)) = (share_of(before), share_of(hold)) else {
            if let (Some(used), Some(call)) = (used, &hold.call) {
                self.use_without_limits(user_id, &lineages, call.terms.began_at, used);
            }
            return;
        };
        if share != held_before {
            let more = held_before.up_to(share.tokens, share.cost_nano_usd);
            self.on_key(user_id, &lineages, &more, KeyTally::hold_more);
        } else if before.status == HoldStatus::Pending && hold.status != HoldStatus::Pending {
            self.on_key(user_id, &lineages, &share, |tally, share| tally.settle(share, used));
        } else if let Some(used) = used.filter(|_| before.status == HoldStatus::Expired) {
            // What it held was given back when it expired.
            self.on_key(user_id, &lineages, &share, |tally, _| tally.settle_late(used));
        }
    }

    /// Counts something in both windows of each lineage, which are locked.
    fn on_key(
        &mut self,
        user_id: UserId,
        lineages: &[ApiKeyId],
        share: &KeyShare,
        count: impl Fn(&mut KeyTally, &KeyShare),
    ) {
        let windows = lineages.iter().flat_map(|lineage_id| windows_of(user_id, *lineage_id, &share.windows));
        for window in windows {
            if let Some(Some(counter)) = self.ground.keys.get_mut(&window) {
                count(&mut counter.tally, share);
                counter.changed = true;
            }
        }
    }

    /// Counts what a call used that no limit was asked for, in the months of its lineages: a limit that is set later in
    /// the month finds it there. Windows that are not locked are added to when the batch is written.
    fn use_without_limits(
        &mut self,
        user_id: UserId,
        lineages: &[ApiKeyId],
        began_at: DateTime<Utc>,
        used: (i64, i64),
    ) {
        for lineage_id in lineages {
            let [_, window] = windows_of(user_id, *lineage_id, &KeyWindows::at(began_at));
            if let Some(Some(counter)) = self.ground.keys.get_mut(&window) {
                counter.tally.settle_late(used);
                counter.changed = true;
                continue;
            }
            let sum = self.key_uses.entry(window).or_insert(KeyUse { window, requests: 0, tokens: 0, cost: 0 });
            sum.requests += 1;
            sum.tokens = sum.tokens.saturating_add(used.0);
            sum.cost = sum.cost.saturating_add(used.1);
        }
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
    let again = || Demanded {
        decision: first.decision.clone(),
        hold: first.hold,
        tokens: TokensAtHand::default(),
        replayed: true,
    };
    if same { Ok(Outcome::Demanded(again())) } else { Err(UsageError::KeyReused) }
}
