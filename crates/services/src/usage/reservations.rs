//! Reservations: what an action does to one, by the rules of `domain::usage`, and what a call reserves of its key's
//! limits.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use domain::api_keys::ApiKeyId;
use domain::entitlements::{Decision, Entitlement, Reason, decide};
use domain::prices::NanoUsd;
use domain::usage::{
    ApiKeyReservation, ApiKeyUsage, ApiKeyWindows, CallEnding, CallPhase, Hold, HoldEnding, HoldOutcome, HoldRefusal,
    HoldStatus, KeyLimitReached, ReservedCallState, admit, admit_more, expire, extend, extend_call,
    extending_needs_tokens, release, settle, settle_call,
};
use domain::users::UserId;
use ports::usage::{ApiKeyWindow, CallOutcome, CounterKey, KeptHold};

use super::commands::{
    CommandOutcome, CommandResult, ConsumeCommand, HoldAction, HoldChanged, KeyRoom, ModelCallTerms, UsageError,
    ends_at,
};
use super::locked_rows::{KeyCounter, LockedHold, lineages_of, windows_of};

/// The decision of the first answer, where the same was done to the reservation before.
pub fn repeated(locked: &LockedHold, entitlement: &Entitlement, action: &HoldAction) -> Option<Decision> {
    let hold = &locked.hold;
    let is_done = match action {
        HoldAction::Settle(used) => hold.status == HoldStatus::Settled && hold.settled == Some(*used),
        HoldAction::Release | HoldAction::ReleaseCall => hold.status == HoldStatus::Released,
        // A call is settled once, by its process or by the sweep, whichever is first. The sweep skips a call that was
        // marked since it was listed.
        HoldAction::SettleCall(result) => {
            let goes_on = hold.status == HoldStatus::Pending && !locked.is_due;
            hold.status == HoldStatus::Settled || (result.outcome == CallOutcome::Swept && goes_on)
        }
        HoldAction::Expire => hold.status != HoldStatus::Pending || !locked.is_due,
        HoldAction::Extend { .. } | HoldAction::Mark { .. } => false,
    };
    is_done.then(|| locked.outcome.clone().unwrap_or_else(|| decide(entitlement, 1)))
}

/// The effect of an action, beside the reservation and its counter.
pub struct HoldEffect {
    pub decision: Decision,
    pub used: i64,
    pub overage: i64,
    pub tokens_held: i64,
    pub tokens_spent: i64,
    pub tokens_unpaid: i64,
}

impl HoldEffect {
    /// Tokens that are reserved or released, and nothing else.
    const fn holding(decision: Decision, tokens_held: i64) -> Self {
        Self { decision, used: 0, overage: 0, tokens_held, tokens_spent: 0, tokens_unpaid: 0 }
    }
}

pub fn act(held: &mut Hold, entitlement: &mut Entitlement, action: &HoldAction) -> Result<HoldEffect, HoldRefusal> {
    let ending = match action {
        HoldAction::Settle(used) => settle(held, entitlement, *used)?,
        HoldAction::Release | HoldAction::ReleaseCall => release(held, entitlement)?,
        HoldAction::Expire => expire(held, entitlement)?,
        HoldAction::Extend { amount, ttl } => {
            let HoldOutcome { decision, tokens, .. } = extend(held, entitlement, amount.unwrap_or(held.amount))?;
            if decision.allowed {
                held.expires_at = held.expires_at.max(ends_at(entitlement.as_of, *ttl));
            }
            return Ok(HoldEffect::holding(decision, tokens));
        }
        HoldAction::Mark { phase, provider, model, delivered_tokens, growth, ttl } => {
            let more = extend_call(held, entitlement, growth.as_ref().map_or(held.tokens, |growth| growth.tokens))?;
            held.expires_at = held.expires_at.max(ends_at(entitlement.as_of, *ttl));
            if let Some(call) = &mut held.call {
                // Marks are not waited for, so an earlier one may arrive later; it adds nothing.
                if *phase >= call.phase {
                    (call.terms.provider, call.terms.model) = (*provider, model.clone());
                }
                call.phase = call.phase.max(*phase);
                call.terms.delivered_tokens = call.terms.delivered_tokens.max(*delivered_tokens);
            }
            let Some(more) = more else { return Ok(HoldEffect::holding(no_room(entitlement), 0)) };
            let decision = Decision { allowed: true, reason: Reason::Ok, ..decide(entitlement, 1) };
            return Ok(HoldEffect::holding(decision, more));
        }
        HoldAction::SettleCall(result) => {
            let used = i64::try_from(result.usage.tokens.total()).unwrap_or(i64::MAX);
            let ending = settle_call(held, entitlement, used)?;
            let CallEnding { decision, overage, tokens_freed, tokens_spent, tokens_unpaid } = ending;
            return Ok(HoldEffect {
                decision,
                used: 1,
                overage,
                tokens_held: -tokens_freed,
                tokens_spent,
                tokens_unpaid,
            });
        }
    };
    let HoldEnding { decision, used, overage, tokens_freed, tokens_spent } = ending;
    Ok(HoldEffect { decision, used, overage, tokens_held: -tokens_freed, tokens_spent, tokens_unpaid: 0 })
}

/// The decision for a call that would grow and cannot.
pub fn no_room(entitlement: &Entitlement) -> Decision {
    Decision { allowed: false, reason: Reason::InsufficientTokens, ..decide(entitlement, 1) }
}

/// Whether the action would move the user's tokens, so that the balance must be locked.
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

pub fn pending(key: &CounterKey, demand: &ConsumeCommand, made: KeptHold, beyond: i64, tokens: i64) -> Hold {
    let reserved =
        |call: &ModelCallTerms| Box::new(ReservedCallState { phase: CallPhase::Reserved, terms: call.terms.clone() });
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

pub fn changed(hold: &Hold, decision: Decision, tokens_spent: i64, replayed: bool) -> CommandResult {
    CommandResult::Settled(Ok(CommandOutcome::Changed(HoldChanged {
        hold: hold.clone(),
        decision,
        tokens_spent,
        replayed,
    })))
}

/// What a call reserves in the windows of each of its budgets; `None` where none of them has a limit. `Err` where one
/// of them refuses it or is busy.
pub fn share_of_key(
    keys: &HashMap<ApiKeyWindow, Option<KeyCounter>>,
    demand: &ConsumeCommand,
    call: &ModelCallTerms,
    as_of: DateTime<Utc>,
) -> Result<Option<ApiKeyReservation>, Box<CommandResult>> {
    if call.budgets.are_unlimited() {
        return Ok(None);
    }
    let windows = ApiKeyWindows::at(as_of);
    let cost_nano_usd = call.terms.max_cost_nano_usd.unwrap_or_default();
    let share = ApiKeyReservation { windows, tokens: call.tokens, cost_nano_usd };
    for budget in call.budgets.iter() {
        let Some([minute, month]) = locked_windows(keys, demand.user_id, budget.lineage_id, &windows) else {
            return Err(Box::new(CommandResult::Busy));
        };
        if let Err(reached) = admit(&budget.limits, minute, month, &share) {
            let resets_at = reached.resets_at(&windows);
            return Err(Box::new(CommandResult::Settled(Err(UsageError::KeyLimit { reached, resets_at, as_of }))));
        }
    }
    Ok(Some(share))
}

/// What the limits of a key, of its lineage and of its makers leave beside what was used, what is reserved, and this
/// share: model tokens and nano-dollars, each by the budget that leaves least.
pub fn room_beside(
    keys: &HashMap<ApiKeyWindow, Option<KeyCounter>>,
    demand: &ConsumeCommand,
    call: &ModelCallTerms,
    share: &ApiKeyReservation,
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

/// What a growing call reserves in addition of its key's limits; `None` for nothing. `Err` where one of its budgets has
/// no room for it.
pub fn growth_on_key(
    keys: &HashMap<ApiKeyWindow, Option<KeyCounter>>,
    hold: &Hold,
    action: &HoldAction,
) -> Result<Option<ApiKeyReservation>, KeyLimitReached> {
    let (HoldAction::Mark { growth: Some(growth), .. }, Some(share)) = (action, share_of(hold)) else {
        return Ok(None);
    };
    let more = share.up_to(growth.tokens, growth.cost);
    for budget in growth.budgets.iter() {
        // The caller has checked that none is busy.
        let locked = locked_windows(keys, hold.user_id, budget.lineage_id, &share.windows);
        let Some([minute, month]) = locked else { continue };
        admit_more(&budget.limits, minute, month, &more)?;
    }
    Ok(Some(more))
}

/// What a reservation counts in the windows of each of its key's budgets.
pub fn share_of(hold: &Hold) -> Option<ApiKeyReservation> {
    hold.api_key_id.and(hold.call.as_ref()).and_then(|call| call.terms.on_key)
}

/// Whether one of the windows that a reservation counts in is busy.
pub fn is_held(keys: &HashMap<ApiKeyWindow, Option<KeyCounter>>, hold: &Hold) -> bool {
    share_of(hold).is_some_and(|share| {
        let is_held = |lineage_id| locked_windows(keys, hold.user_id, lineage_id, &share.windows).is_none();
        lineages_of(hold).into_iter().any(is_held)
    })
}

/// The usage of the minute and the month of a lineage. `None` where one of them is busy.
fn locked_windows<'a>(
    keys: &'a HashMap<ApiKeyWindow, Option<KeyCounter>>,
    user_id: UserId,
    lineage_id: ApiKeyId,
    windows: &ApiKeyWindows,
) -> Option<[&'a ApiKeyUsage; 2]> {
    let [minute, month] = windows_of(user_id, lineage_id, windows).map(|window| keys.get(&window)?.as_ref());
    Some([&minute?.tally, &month?.tally])
}

/// The tokens and the cost that the settlement of a call reports.
pub fn used_of(action: &HoldAction) -> Option<(i64, i64)> {
    let HoldAction::SettleCall(result) = action else { return None };
    let tokens = i64::try_from(result.usage.tokens.total()).unwrap_or(i64::MAX);
    Some((tokens, result.cost.as_ref().map_or(0, |cost| cost.amount.0)))
}

#[cfg(test)]
mod tests {
    use domain::ai::{CallUsage, ModelId, ProviderId, TokenUsage};
    use domain::entitlements::{Access, Allowance, Overage, Source};
    use domain::features::FeatureId;
    use domain::plans::PlanId;
    use domain::usage::{CallTerms, CounterTally, HoldId, Period, PeriodKind};
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
            tally: CounterTally { reserved: 1, ..CounterTally::default() },
            tokens_available: 0,
            as_of: start,
        }
    }

    fn held(is_due: bool) -> LockedHold {
        let terms = CallTerms {
            provider: ProviderId::OPENAI,
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
            call: Some(Box::new(ReservedCallState { phase: CallPhase::Dispatched, terms })),
        };
        LockedHold { hold, is_due, outcome: None, changed: false }
    }

    fn settled(outcome: CallOutcome) -> HoldAction {
        HoldAction::SettleCall(Box::new(CallResult {
            provider: ProviderId::OPENAI,
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
            provider: ProviderId::CLAUDE,
            model: ModelId::parse(model).unwrap(),
            delivered_tokens,
            growth: None,
            ttl: chrono::TimeDelta::seconds(60),
        };
        let (mut locked, mut given) = (held(false), entitlement());
        for action in [mark(CallPhase::FirstByte, "fallback", 7), mark(CallPhase::Dispatched, "asked", 0)] {
            act(&mut locked.hold, &mut given, &action).unwrap();
        }
        let ReservedCallState { phase, terms } = *locked.hold.call.unwrap();
        assert_eq!((phase, terms.model.as_str(), terms.delivered_tokens), (CallPhase::FirstByte, "fallback", 7));
        assert_eq!(terms.provider, ProviderId::CLAUDE);
    }
}
