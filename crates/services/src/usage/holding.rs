//! Holding: what becomes of a hold, by the pure rules of `domain::usage`, and of what a call holds of its key's limits.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use domain::api_keys::ApiKeyId;
use domain::entitlements::{Decision, Entitlement, Reason, decide};
use domain::prices::NanoUsd;
use domain::usage::{
    CallEnding, CallPhase, Ending, HeldCall, Hold, HoldRefusal, HoldStatus, Holding, KeyLimitReached, KeyShare,
    KeyTally, KeyWindows, admit, admit_more, expire, extend, extend_call, extending_needs_tokens, release, settle,
    settle_call,
};
use domain::users::UserId;
use ports::usage::{CallOutcome, CounterKey, KeptHold, KeyWindow};

use super::commands::{CallDemand, Changed, Demand, Fate, HoldAction, KeyRoom, Outcome, UsageError, ends_at};
use super::ground::{KeyCounter, LockedHold, lineages_of, windows_of};

/// The numbers of the first answer, where the same was done to the hold before.
pub fn repeated(locked: &LockedHold, entitlement: &Entitlement, action: &HoldAction) -> Option<Decision> {
    let hold = &locked.hold;
    let is_done = match action {
        HoldAction::Settle(used) => hold.status == HoldStatus::Settled && hold.settled == Some(*used),
        HoldAction::Release | HoldAction::ReleaseCall => hold.status == HoldStatus::Released,
        // A call is settled once: whoever was first, the process or the sweep, said what it used. The sweep leaves one alone
        // that has been heard of since it was found.
        HoldAction::SettleCall(result) => {
            let goes_on = hold.status == HoldStatus::Pending && !locked.is_due;
            hold.status == HoldStatus::Settled || (result.outcome == CallOutcome::Swept && goes_on)
        }
        HoldAction::Expire => hold.status != HoldStatus::Pending || !locked.is_due,
        HoldAction::Extend { .. } | HoldAction::Mark { .. } => false,
    };
    is_done.then(|| locked.outcome.clone().unwrap_or_else(|| decide(entitlement, 1)))
}

/// What an action on a hold came to, beside the hold and its counter.
pub struct Effect {
    pub decision: Decision,
    pub used: i64,
    pub overage: i64,
    pub tokens_held: i64,
    pub tokens_spent: i64,
    pub tokens_unpaid: i64,
}

impl Effect {
    /// Tokens that are held or freed, and nothing else.
    const fn holding(decision: Decision, tokens_held: i64) -> Self {
        Self { decision, used: 0, overage: 0, tokens_held, tokens_spent: 0, tokens_unpaid: 0 }
    }
}

pub fn act(held: &mut Hold, entitlement: &mut Entitlement, action: &HoldAction) -> Result<Effect, HoldRefusal> {
    let ending = match action {
        HoldAction::Settle(used) => settle(held, entitlement, *used)?,
        HoldAction::Release | HoldAction::ReleaseCall => release(held, entitlement)?,
        HoldAction::Expire => expire(held, entitlement)?,
        HoldAction::Extend { amount, ttl } => {
            let Holding { decision, tokens, .. } = extend(held, entitlement, amount.unwrap_or(held.amount))?;
            if decision.allowed {
                held.expires_at = held.expires_at.max(ends_at(entitlement.as_of, *ttl));
            }
            return Ok(Effect::holding(decision, tokens));
        }
        HoldAction::Mark { phase, provider, model, delivered_tokens, growth, ttl } => {
            let more = extend_call(held, entitlement, growth.as_ref().map_or(held.tokens, |growth| growth.tokens))?;
            held.expires_at = held.expires_at.max(ends_at(entitlement.as_of, *ttl));
            if let Some(call) = &mut held.call {
                // Marks are not waited for, so an earlier one may come later: it says nothing new.
                if *phase >= call.phase {
                    (call.terms.provider, call.terms.model) = (*provider, model.clone());
                }
                call.phase = call.phase.max(*phase);
                call.terms.delivered_tokens = call.terms.delivered_tokens.max(*delivered_tokens);
            }
            let Some(more) = more else { return Ok(Effect::holding(no_room(entitlement), 0)) };
            let decision = Decision { allowed: true, reason: Reason::Ok, ..decide(entitlement, 1) };
            return Ok(Effect::holding(decision, more));
        }
        HoldAction::SettleCall(result) => {
            let used = i64::try_from(result.usage.tokens.total()).unwrap_or(i64::MAX);
            let ending = settle_call(held, entitlement, used)?;
            let CallEnding { decision, overage, tokens_freed, tokens_spent, tokens_unpaid } = ending;
            return Ok(Effect { decision, used: 1, overage, tokens_held: -tokens_freed, tokens_spent, tokens_unpaid });
        }
    };
    let Ending { decision, used, overage, tokens_freed, tokens_spent } = ending;
    Ok(Effect { decision, used, overage, tokens_held: -tokens_freed, tokens_spent, tokens_unpaid: 0 })
}

/// The answer to a call that would grow and cannot.
pub fn no_room(entitlement: &Entitlement) -> Decision {
    Decision { allowed: false, reason: Reason::InsufficientTokens, ..decide(entitlement, 1) }
}

/// Whether the action would touch the user's tokens, so that the balance must be under its lock.
pub fn moves_tokens(held: &Hold, entitlement: &Entitlement, action: &HoldAction) -> bool {
    match action {
        HoldAction::Settle(used) => held.moves_tokens(entitlement, *used),
        HoldAction::Release | HoldAction::ReleaseCall | HoldAction::Expire => held.moves_tokens(entitlement, 0),
        HoldAction::SettleCall(_) => held.moves_tokens(entitlement, 1),
        HoldAction::Mark { growth, .. } => {
            held.beyond > 0 && growth.as_ref().is_some_and(|growth| growth.tokens > held.tokens)
        }
        HoldAction::Extend { amount, .. } => {
            amount.is_some_and(|amount| extending_needs_tokens(held, entitlement, amount))
        }
    }
}

pub fn pending(key: &CounterKey, demand: &Demand, made: KeptHold, beyond: i64, tokens: i64) -> Hold {
    let reserved = |call: &CallDemand| Box::new(HeldCall { phase: CallPhase::Reserved, terms: call.terms.clone() });
    Hold {
        id: made.id,
        user_id: demand.user_id,
        feature_id: demand.feature_id.clone(),
        period_kind: key.period_kind,
        period_start: key.period_start,
        amount: demand.amount,
        beyond,
        tokens,
        status: HoldStatus::Pending,
        settled: None,
        overage: 0,
        expires_at: made.expires_at,
        api_key_id: demand.api_key_id,
        call: demand.call.as_deref().map(reserved),
    }
}

pub fn changed(hold: &Hold, decision: Decision, tokens_spent: i64, replayed: bool) -> Fate {
    Fate::Settled(Ok(Outcome::Changed(Changed { hold: hold.clone(), decision, tokens_spent, replayed })))
}

/// What a call holds in the windows of each of its budgets; `None` where none of them has a limit. `Err` where one of them
/// refuses it or it has to wait.
pub fn share_of_key(
    keys: &HashMap<KeyWindow, Option<KeyCounter>>,
    demand: &Demand,
    call: &CallDemand,
    as_of: DateTime<Utc>,
) -> Result<Option<KeyShare>, Box<Fate>> {
    if call.budgets.are_unlimited() {
        return Ok(None);
    }
    let windows = KeyWindows::at(as_of);
    let cost_nano_usd = call.terms.max_cost_nano_usd.unwrap_or_default();
    let share = KeyShare { windows, tokens: call.tokens, cost_nano_usd };
    for budget in call.budgets.iter() {
        let Some([minute, month]) = locked_windows(keys, demand.user_id, budget.lineage_id, &windows) else {
            return Err(Box::new(Fate::Held));
        };
        if let Err(reached) = admit(&budget.limits, minute, month, &share) {
            let resets_at = reached.resets_at(&windows);
            return Err(Box::new(Fate::Settled(Err(UsageError::KeyLimit { reached, resets_at, as_of }))));
        }
    }
    Ok(Some(share))
}

/// What the limits of a key, of its lineage and of its makers leave beside what was used, what is held, and this share: model
/// tokens and nano-dollars, each by the budget that leaves least.
pub fn room_beside(
    keys: &HashMap<KeyWindow, Option<KeyCounter>>,
    demand: &Demand,
    call: &CallDemand,
    share: &KeyShare,
) -> (Option<KeyRoom>, Option<KeyRoom>) {
    let room = |limit: i64, parts: [i64; 3]| {
        let left = parts.into_iter().fold(limit, i64::saturating_sub).max(0);
        KeyRoom { limit, left }
    };
    let (mut tokens, mut cost) = (None::<KeyRoom>, None::<KeyRoom>);
    let tighter =
        |known: Option<KeyRoom>, other: Option<KeyRoom>| known.into_iter().chain(other).min_by_key(|room| room.left);
    for budget in call.budgets.iter() {
        let locked = locked_windows(keys, demand.user_id, budget.lineage_id, &share.windows);
        let Some([minute, month]) = locked else { continue };
        let of_tokens = |limit| room(limit, [minute.tokens, minute.tokens_held, share.tokens]);
        let of_cost = |limit: NanoUsd| room(limit.0, [month.cost, month.cost_held, share.cost_nano_usd]);
        tokens = tighter(tokens, budget.limits.tokens_per_minute.map(of_tokens));
        cost = tighter(cost, budget.limits.monthly_cost.map(of_cost));
    }
    (tokens, cost)
}

/// What a call that grows holds more of its key's limits; `None` where that is nothing. `Err` where one of its budgets has
/// no room for it.
pub fn growth_on_key(
    keys: &HashMap<KeyWindow, Option<KeyCounter>>,
    hold: &Hold,
    action: &HoldAction,
) -> Result<Option<KeyShare>, KeyLimitReached> {
    let (HoldAction::Mark { growth: Some(growth), .. }, Some(share)) = (action, share_of(hold)) else {
        return Ok(None);
    };
    let more = share.up_to(growth.tokens, growth.cost);
    for budget in growth.budgets.iter() {
        // Whether somebody else holds them was asked before.
        let locked = locked_windows(keys, hold.user_id, budget.lineage_id, &share.windows);
        let Some([minute, month]) = locked else { continue };
        admit_more(&budget.limits, minute, month, &more)?;
    }
    Ok(Some(more))
}

/// What a hold holds in the windows of each of its key's budgets.
pub fn share_of(hold: &Hold) -> Option<KeyShare> {
    hold.api_key_id.and(hold.call.as_ref()).and_then(|call| call.terms.on_key)
}

/// Whether somebody else holds one of the windows that a hold counts in.
pub fn is_held(keys: &HashMap<KeyWindow, Option<KeyCounter>>, hold: &Hold) -> bool {
    share_of(hold).is_some_and(|share| {
        let is_held = |lineage_id| locked_windows(keys, hold.user_id, lineage_id, &share.windows).is_none();
        lineages_of(hold).into_iter().any(is_held)
    })
}

/// What stands in the minute and the month of a lineage. `None` where somebody else holds one of them.
fn locked_windows<'a>(
    keys: &'a HashMap<KeyWindow, Option<KeyCounter>>,
    user_id: UserId,
    lineage_id: ApiKeyId,
    windows: &KeyWindows,
) -> Option<[&'a KeyTally; 2]> {
    let [minute, month] = windows_of(user_id, lineage_id, windows).map(|window| keys.get(&window)?.as_ref());
    Some([&minute?.tally, &month?.tally])
}

/// The tokens and the cost that a call's end says were used.
pub fn used_of(action: &HoldAction) -> Option<(i64, i64)> {
    let HoldAction::SettleCall(result) = action else { return None };
    let tokens = i64::try_from(result.usage.tokens.total()).unwrap_or(i64::MAX);
    Some((tokens, result.cost.as_ref().map_or(0, |cost| cost.amount.0)))
}

#[cfg(test)]
mod tests {
    use domain::ai::{CallUsage, ModelId, Provider, TokenUsage};
    use domain::entitlements::{Access, Allowance, Overage, Source};
    use domain::features::FeatureId;
    use domain::plans::PlanId;
    use domain::usage::{CallTerms, HoldId, Period, PeriodKind, Tally};
    use domain::users::UserId;
    use ports::usage::{BeyondHold, CallResult};
    use uuid::Uuid;

    use super::*;

    fn entitlement() -> Entitlement {
        let start = DateTime::UNIX_EPOCH;
        Entitlement {
            feature_id: FeatureId::parse("ai_requests").unwrap(),
            plan_id: PlanId::free(),
            source: Source::Plan,
            access: Access::Granted,
            allowance: Allowance::Limited(5),
            overage: Overage::Block,
            period: Period::containing(PeriodKind::Month, start, start),
            tally: Tally { reserved: 1, ..Tally::default() },
            tokens_available: 0,
            as_of: start,
        }
    }

    fn held(is_due: bool) -> LockedHold {
        let terms = CallTerms {
            provider: Provider::OpenAi,
            model: ModelId::parse("asked").unwrap(),
            is_sandbox: false,
            input_tokens: 1,
            max_output_tokens: 1,
            delivered_tokens: 0,
            max_cost_nano_usd: None,
            began_at: DateTime::UNIX_EPOCH,
            session_id: None,
            on_key: None,
            key_lineages: Vec::new(),
        };
        let hold = Hold {
            id: HoldId(Uuid::nil()),
            user_id: UserId(Uuid::nil()),
            feature_id: FeatureId::parse("ai_requests").unwrap(),
            period_kind: PeriodKind::Month,
            period_start: DateTime::UNIX_EPOCH,
            amount: 1,
            beyond: 0,
            tokens: 0,
            status: HoldStatus::Pending,
            settled: None,
            overage: 0,
            expires_at: DateTime::UNIX_EPOCH,
            api_key_id: None,
            call: Some(Box::new(HeldCall { phase: CallPhase::Dispatched, terms })),
        };
        LockedHold { hold, is_due, outcome: None, changed: false }
    }

    fn settled(outcome: CallOutcome) -> HoldAction {
        HoldAction::SettleCall(Box::new(CallResult {
            provider: Provider::OpenAi,
            model: "asked".to_owned(),
            usage: CallUsage::standard(TokenUsage::default()),
            reported: None,
            cost: None,
            outcome,
            latency_ms: None,
            session_id: None,
            messages: Vec::new(),
            beyond: BeyondHold::default(),
        }))
    }

    #[test]
    fn the_sweep_leaves_a_call_alone_that_was_heard_of_since() {
        let given = entitlement();
        assert!(repeated(&held(false), &given, &settled(CallOutcome::Swept)).is_some());
        assert!(repeated(&held(true), &given, &settled(CallOutcome::Swept)).is_none());
        assert!(repeated(&held(false), &given, &settled(CallOutcome::Ok)).is_none(), "its own process may at any time");
    }

    #[test]
    fn a_mark_says_who_answers_and_never_less_than_the_one_before() {
        let mark = |phase, model: &str, delivered_tokens| HoldAction::Mark {
            phase,
            provider: Provider::Claude,
            model: ModelId::parse(model).unwrap(),
            delivered_tokens,
            growth: None,
            ttl: chrono::TimeDelta::seconds(60),
        };
        let (mut locked, mut given) = (held(false), entitlement());
        for action in [mark(CallPhase::FirstByte, "fallback", 7), mark(CallPhase::Dispatched, "asked", 0)] {
            act(&mut locked.hold, &mut given, &action).unwrap();
        }
        let HeldCall { phase, terms } = *locked.hold.call.unwrap();
        assert_eq!((phase, terms.model.as_str(), terms.delivered_tokens), (CallPhase::FirstByte, "fallback", 7));
        assert_eq!(terms.provider, Provider::Claude);
    }
}
