//! Decider: the state between reading and writing a batch, in memory alone.
//!
//! Each command is decided by the pure rules of `domain::usage` on what the one before it left. An idempotency key that
//! was granted earlier in the same batch is answered like one that was granted long ago.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use domain::api_keys::ApiKeyId;
use domain::entitlements::Count;
use domain::features::FeatureKind;
use domain::idempotency::IdempotencyKey;
use domain::usage::{
    ApiKeyReservation, ApiKeyUsage, ApiKeyWindows, Consumption, Hold, HoldId, HoldOutcome, HoldStatus, Period, consume,
    hold, hold_call, needs_tokens,
};
use domain::users::UserId;
use ports::entitlements::Meter;
use ports::randomness::Randomness;
use ports::usage::{
    ApiKeyWindow, BatchRecord, CallRecord, CounterChange, CounterKey, HoldChange, KeptHold, KeptOutcome, KeyChange,
    KeyUse, TokenChange, UsageEntry,
};

use super::commands::{
    CommandOutcome, CommandResult, ConsumeCommand, ConsumeOutcome, HoldAction, HoldCommand, HoldOwner, LockMode,
    TokensAtHand, UsageCommand, UsageError, ends_at,
};
use super::locked_rows::{
    HoldCounter, HoldLock, LockedCounter, LockedRows, MeterLock, counter_of, lineages_of, windows_of,
};
use super::reservations::{
    HoldEffect, act, changed, growth_on_key, is_held, moves_tokens, no_room, pending, repeated, room_beside, share_of,
    share_of_key, used_of,
};

/// The result of a batch.
pub struct DecidedBatch {
    pub record: BatchRecord,
    pub tokens: Vec<TokenChange>,
    pub counts: Vec<(Meter, Period, Count)>,
}

pub struct BatchDecider<'a> {
    rows: LockedRows,
    kept: HashMap<usize, KeptOutcome>,
    /// What this batch granted, by user and idempotency key.
    granted: HashMap<(UserId, IdempotencyKey), KeptOutcome>,
    /// What each user has left to spend: one balance for all features.
    tokens: HashMap<UserId, i64>,
    entries: Vec<UsageEntry>,
    made: Vec<HoldChange>,
    moved: Vec<TokenChange>,
    calls: Vec<CallRecord>,
    /// What calls by API keys without limits used, by window, in the order in which the rows are written.
    key_uses: BTreeMap<ApiKeyWindow, KeyUse>,
    lock_mode: LockMode,
    randomness: &'a dyn Randomness,
}

impl<'a> BatchDecider<'a> {
    pub fn new(
        rows: LockedRows,
        kept: HashMap<usize, KeptOutcome>,
        lock_mode: LockMode,
        randomness: &'a dyn Randomness,
    ) -> Self {
        let balance = |counter: &LockedCounter| (counter.key.meter.user_id, counter.entitlement.tokens_available);
        let tokens = rows.counters.iter().map(balance).collect();
        let (granted, entries, made, moved) = (HashMap::new(), Vec::new(), Vec::new(), Vec::new());
        let (calls, key_uses) = (Vec::new(), BTreeMap::new());
        Self { rows, kept, granted, tokens, entries, made, moved, calls, key_uses, lock_mode, randomness }
    }

    pub fn decide(&mut self, place: usize, command: &UsageCommand) -> CommandResult {
        match command {
            UsageCommand::Consume(demand) => self.demand(place, demand),
            UsageCommand::Hold(_) if command.session_id().is_some_and(|id| self.rows.is_session_busy(id)) => {
                CommandResult::Busy
            }
            UsageCommand::Hold(command) => self.change_hold(command),
        }
    }

    /// All that is to be written, and the counts of the counters in force after that.
    pub fn finish(self) -> DecidedBatch {
        let Self { rows, made: mut holds, entries, tokens, moved, calls, key_uses, .. } = self;
        let LockedRows { counters, holds: locked, keys, .. } = rows;
        let counters: Vec<_> = counters.into_iter().filter(|counter| counter.changed).collect();
        let counts = counters.iter().filter(|counter| counter.is_in_force).map(|counter| {
            let LockedCounter { key, entitlement, .. } = counter;
            let tokens_available = tokens.get(&key.meter.user_id).copied().unwrap_or_default();
            let count = Count { tally: entitlement.tally, tokens_available, as_of: entitlement.as_of };
            (key.meter.clone(), entitlement.period, count)
        });
        let counts = counts.collect();
        let changed = |counter: LockedCounter| CounterChange { key: counter.key, tally: counter.entitlement.tally };
        let counters = counters.into_iter().map(changed).collect();
        holds.extend(locked.into_values().filter_map(|place| match place {
            HoldLock::Locked(locked) if locked.changed => {
                Some(HoldChange { hold: locked.hold, key: None, outcome: locked.outcome })
            }
            _ => None,
        }));
        let keys = keys.into_iter().filter_map(|(window, counter)| {
            counter.filter(|counter| counter.changed).map(|counter| KeyChange { window, tally: counter.tally })
        });
        let key_uses = key_uses.into_values().collect();
        let record = BatchRecord { counters, entries, holds, keys: keys.collect(), key_uses, calls };
        DecidedBatch { record, tokens: moved, counts }
    }

    fn demand(&mut self, place: usize, demand: &ConsumeCommand) -> CommandResult {
        let first = self.kept.get(&place).or_else(|| self.granted.get(&(demand.user_id, demand.key.clone())));
        if let Some(first) = first {
            return CommandResult::Settled(again(first, demand));
        }
        let counter = match self.rows.place_of(&demand.meter()) {
            MeterLock::Locked(place) => *place,
            MeterLock::Busy => return CommandResult::Busy,
            MeterLock::UnknownFeature => {
                return CommandResult::Settled(Err(UsageError::UnknownFeature(demand.feature_id.clone())));
            }
            MeterLock::UnknownUser => return CommandResult::Settled(Err(UsageError::UnknownUser)),
        };
        self.count(demand, counter).unwrap_or_else(|result| *result)
    }

    /// Decides on the counter at `place`. `Err` says why nothing was counted.
    fn count(&mut self, demand: &ConsumeCommand, place: usize) -> Result<CommandResult, Box<CommandResult>> {
        let unknown = || Box::new(CommandResult::Settled(Err(UsageError::UnknownUser)));
        let counter = self.rows.counters.get_mut(place).ok_or_else(unknown)?;
        if counter.kind == FeatureKind::Boolean && demand.amount != 1 {
            return Err(Box::new(CommandResult::Settled(Err(UsageError::NotMetered(demand.feature_id.clone())))));
        }
        let balance = self.tokens.entry(demand.user_id).or_default();
        counter.entitlement.tokens_available = *balance;
        if !matches!(self.lock_mode, LockMode::WaitAndSpend(_)) && needs_tokens(&counter.entitlement, demand.amount) {
            return Err(Box::new(CommandResult::NeedsTokens(demand.user_id)));
        }
        let share = match &demand.call {
            Some(call) => share_of_key(&self.rows.keys, demand, call, counter.entitlement.as_of)?,
            None => None,
        };
        let (holding, overage) = match (&demand.call, demand.hold_for) {
            (Some(call), _) => (hold_call(&mut counter.entitlement, call.tokens), 0),
            (None, Some(_)) => (hold(&mut counter.entitlement, demand.amount), 0),
            (None, None) => {
                let Consumption { decision, overage } = consume(&mut counter.entitlement, demand.amount);
                (HoldOutcome { decision, beyond: overage, tokens: overage }, overage)
            }
        };
        *balance = counter.entitlement.tokens_available;
        let (key_tokens, key_cost) = match (&demand.call, &share) {
            (Some(call), Some(share)) => room_beside(&self.rows.keys, demand, call, share),
            _ => (None, None),
        };
        let at_hand = TokensAtHand { held: holding.tokens, available: *balance, key_tokens, key_cost };
        counter.changed |= holding.decision.allowed;
        let key = counter.key.clone();
        let hold = self.book(demand, key, &holding, overage, share);
        let demanded = ConsumeOutcome { decision: holding.decision, hold, tokens: at_hand, replayed: false };
        Ok(CommandResult::Settled(Ok(CommandOutcome::Consumed(demanded))))
    }

    /// Records what is to be written for a decided command, and returns the reservation if one was made. A refusal
    /// writes nothing.
    fn book(
        &mut self,
        demand: &ConsumeCommand,
        key: CounterKey,
        holding: &HoldOutcome,
        overage: i64,
        share: Option<ApiKeyReservation>,
    ) -> Option<KeptHold> {
        let HoldOutcome { decision, beyond, tokens } = holding;
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
            self.on_key(demand.user_id, &lineages, &share, ApiKeyUsage::hold);
        }
        if demand.call.is_none() {
            let outcome = KeptOutcome { amount: demand.amount, decision: decision.clone(), hold: made };
            self.granted.insert((demand.user_id, demand.key.clone()), outcome.clone());
            self.entries.push(UsageEntry {
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

    fn change_hold(&mut self, command: &HoldCommand) -> CommandResult {
        let unknown = CommandResult::Settled(Err(UsageError::UnknownHold));
        let (user_id, key) = match self.rows.holds.get(&command.hold_id) {
            Some(HoldLock::Locked(locked)) => (locked.hold.user_id, counter_of(&locked.hold)),
            Some(HoldLock::Busy) => return CommandResult::Busy,
            Some(HoldLock::Unknown) | None => return unknown,
        };
        if matches!(command.whose, HoldOwner::User(owner) if owner != user_id) {
            return unknown;
        }
        let place = match self.rows.place_of_hold(&key) {
            HoldCounter::Locked(place) => place,
            HoldCounter::Busy => return CommandResult::Busy,
            HoldCounter::Missing => {
                let fault = format!("the counter of the hold {} is missing", command.hold_id.0);
                return CommandResult::Settled(Err(UsageError::Fault(fault)));
            }
        };
        self.act(command, key, place).unwrap_or(unknown)
    }

    /// Applies the action to the reservation, on the counter at `place`. `None` if the action does not fit the
    /// reservation.
    fn act(&mut self, command: &HoldCommand, key: CounterKey, place: usize) -> Option<CommandResult> {
        let user_id = key.meter.user_id;
        let LockedRows { counters, holds, keys, .. } = &mut self.rows;
        let counter = counters.get_mut(place)?;
        let Some(HoldLock::Locked(locked)) = holds.get_mut(&command.hold_id) else { return None };
        if command.action.is_of_call().is_some_and(|is| is != locked.hold.call.is_some()) {
            return None;
        }
        let balance = self.tokens.entry(user_id).or_default();
        counter.entitlement.tokens_available = *balance;
        let entitlement = &mut counter.entitlement;
        if let Some(decision) = repeated(locked, entitlement, &command.action) {
            return Some(changed(&locked.hold, decision, 0, true));
        }
        if !matches!(self.lock_mode, LockMode::WaitAndSpend(_))
            && moves_tokens(&locked.hold, entitlement, &command.action)
        {
            return Some(CommandResult::NeedsTokens(user_id));
        }
        if is_held(keys, &locked.hold) {
            return Some(CommandResult::Busy);
        }
        let Ok(more) = growth_on_key(keys, &locked.hold, &command.action) else {
            return Some(changed(&locked.hold, no_room(entitlement), 0, false));
        };
        let before = (locked.hold.clone(), entitlement.tally);
        let effect = match act(&mut locked.hold, entitlement, &command.action) {
            Ok(effect) => effect,
            Err(refusal) => return Some(CommandResult::Settled(Err(UsageError::of_hold(refusal, &locked.hold)))),
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

    /// Records what is to be written for a changed reservation.
    fn book_change(&mut self, action: &HoldAction, key: CounterKey, before: &Hold, hold: &Hold, effect: &HoldEffect) {
        let (user_id, api_key_id) = (hold.user_id, hold.api_key_id);
        if effect.tokens_held != 0 || effect.tokens_spent > 0 {
            self.move_tokens(&key.meter, effect.tokens_held, effect.tokens_spent, Some(hold.id));
        }
        if effect.used > 0 {
            self.entries.push(UsageEntry {
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

    /// Counts a changed reservation in the windows of its key's budgets.
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
            self.on_key(user_id, &lineages, &more, ApiKeyUsage::hold_more);
        } else if before.status == HoldStatus::Pending && hold.status != HoldStatus::Pending {
            self.on_key(user_id, &lineages, &share, |tally, share| tally.settle(share, used));
        } else if let Some(used) = used.filter(|_| before.status == HoldStatus::Expired) {
            // What it had reserved was released when it expired.
            self.on_key(user_id, &lineages, &share, |tally, _| tally.settle_late(used));
        }
    }

    /// Counts something in both windows of each lineage, which are locked.
    fn on_key(
        &mut self,
        user_id: UserId,
        lineages: &[ApiKeyId],
        share: &ApiKeyReservation,
        count: impl Fn(&mut ApiKeyUsage, &ApiKeyReservation),
    ) {
        let windows = lineages.iter().flat_map(|lineage_id| windows_of(user_id, *lineage_id, &share.windows));
        for window in windows {
            if let Some(Some(counter)) = self.rows.keys.get_mut(&window) {
                count(&mut counter.tally, share);
                counter.changed = true;
            }
        }
    }

    /// Counts the use of a call without limits in the months of its lineages, so that a limit that is set later in the
    /// month includes it. Windows that are not locked are added to when the batch is written.
    fn use_without_limits(
        &mut self,
        user_id: UserId,
        lineages: &[ApiKeyId],
        began_at: DateTime<Utc>,
        used: (i64, i64),
    ) {
        for lineage_id in lineages {
            let [_, window] = windows_of(user_id, *lineage_id, &ApiKeyWindows::at(began_at));
            if let Some(Some(counter)) = self.rows.keys.get_mut(&window) {
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

/// Returns the first outcome again, if the command is the same.
fn again(first: &KeptOutcome, demand: &ConsumeCommand) -> Result<CommandOutcome, UsageError> {
    let held_for = first.hold.map(|hold| hold.expires_at - first.decision.as_of);
    let same =
        first.decision.feature_id == demand.feature_id && first.amount == demand.amount && held_for == demand.hold_for;
    let again = || ConsumeOutcome {
        decision: first.decision.clone(),
        hold: first.hold,
        tokens: TokensAtHand::default(),
        replayed: true,
    };
    if same { Ok(CommandOutcome::Consumed(again())) } else { Err(UsageError::KeyReused) }
}
