//! Holding: the most that a call can use is set aside before it is sent, less where that may be and is all that can be paid.
//!
//! Promises: what is granted covers what goes in, as far as anybody can say. A call that takes in what cannot be seen in it is
//! held at its model's input window; where nobody knows that window, it is refused under a limit of tokens or of costs.
//!
//! A stream holds a first part of what may come out, and `course.rs` holds more as it grows; where the limits leave less than that
//! part, all that they leave. The whole bound is held where the caller or the settings ask for it.
//!
//! Costs: one command of the lanes, and one more for each time that it is lowered.

use domain::entitlements::Reason;
use domain::prices::{NanoUsd, PriceList};
use domain::usage::KeyWindows;
use ports::ai::ProviderCall;

use super::bounds::{Bounds, whole};
use super::calls::Call;
use super::errors::{CallError, KeyLimitReached};
use super::service::{AiService, HeldCall, models};
use crate::usage::commands::{Demanded, HoldAction, KeyRoom, UsageError};

/// How often a call is lowered at most before it is refused: its room can shrink while it is asked for.
const LOWERINGS: usize = 3;

impl AiService {
    /// Holds the most that it can use; less where that may be and is all that can be paid.
    pub(super) async fn hold(&self, call: &Call) -> Result<HeldCall, CallError> {
        let (prices, now) = (self.parts.prices.current().await?, self.parts.clock.now());
        let is_elastic = call.streamed && !call.output.is_strict && !self.parts.settings.strict_holds;
        let may_lower = call.output.may_be_lowered || self.parts.settings.may_lower || is_elastic;
        let mut calls = self.calls(call).await?;
        let mut bounds = self.bounds(call, &calls).await?;
        let is_unbounded = bounds.is_unbounded;
        if is_unbounded && call.asking.budgets.limit_growth() {
            return Err(CallError::Unbounded(call.target.model.to_string()));
        }
        let mut lowerings = if may_lower { LOWERINGS } else { 0 };
        loop {
            let demand_cost = self.max_cost(call, &bounds, &calls, &prices, now).await?;
            let (error, room) = match self.parts.usage.demand(self.demand(call, &bounds, demand_cost, now)).await {
                Ok(demanded) if is_unbounded && demanded.tokens.held > 0 => {
                    self.give_back(call, &demanded).await;
                    return Err(CallError::Unbounded(call.target.model.to_string()));
                }
                Ok(demanded) if demanded.hold.is_some() => {
                    let told = told_what_can_be_paid(call, &bounds, &demanded, &calls, &prices);
                    let of_use = bounds.of_use().min(bounds.output_most);
                    if told.output_most < of_use {
                        self.give_back(call, &demanded).await;
                        let needed = bounds.grown_to(of_use);
                        let cost = self.max_cost(call, &needed, &calls, &prices, now).await?;
                        return Err(too_little_room(&demanded, cost.zip(demand_cost), &bounds, &needed));
                    }
                    let bounds = told;
                    for call in &mut calls {
                        call.max_output_tokens = bounds.told();
                    }
                    return Ok(HeldCall { bounds, demanded, calls, prices });
                }
                Ok(demanded) => refused(&demanded, &bounds),
                Err(UsageError::KeyLimit { reached, resets_at, as_of }) => {
                    let room = match reached {
                        KeyLimitReached::Requests { .. } => None,
                        KeyLimitReached::Tokens { limit, used, .. } => left(limit - used, &bounds),
                        KeyLimitReached::Cost { limit, used, .. } => {
                            let room = NanoUsd((limit.0 - used.0).max(0));
                            let models: Vec<_> = models(&calls).collect();
                            Some(bounds.output_for(call, &models, room, &prices, now))
                        }
                    };
                    (CallError::KeyLimit { reached, resets_at, as_of }, room)
                }
                Err(error) => return Err(error.into()),
            };
            let Some(lowered) = room.filter(|_| lowerings > 0).and_then(|room| bounds.lowered(room)) else {
                return Err(error);
            };
            (bounds, lowerings) = (lowered, lowerings - 1);
        }
    }

    /// How many tokens go into a call at most, where that is known of all models that may answer.
    pub(super) async fn window(&self, call: &Call, calls: &[ProviderCall]) -> Result<Option<u64>, CallError> {
        let mut widest = call.target.max_input_tokens;
        for other in calls.iter().skip(1) {
            let known = self.parts.prices.find(Some(other.provider), &other.model).await?;
            widest = widest.zip(known.and_then(|known| known.max_input_tokens)).map(|(one, other)| one.max(other));
        }
        Ok(widest)
    }

    /// Gives back a hold that is not enough, or that nobody can say is enough.
    async fn give_back(&self, call: &Call, demanded: &Demanded) {
        if let Some(hold) = demanded.hold
            && let Err(error) = self.change(hold.id, call.asking.user_id, HoldAction::ReleaseCall).await
        {
            tracing::warn!(%error, call = %hold.id.0, "a hold that was not enough could not be given back; the sweep does");
        }
    }
}

/// A stream whose bound is asked for is told no more than there is room for, so that it cannot use more than the limits allow
/// before anybody has seen it. One without a bound is cut where no more can be held.
fn told_what_can_be_paid(
    call: &Call,
    bounds: &Bounds,
    demanded: &Demanded,
    calls: &[ProviderCall],
    prices: &PriceList,
) -> Bounds {
    if call.output.asked.is_none() || bounds.output >= bounds.output_most {
        return bounds.clone();
    }
    let at_hand = &demanded.tokens;
    let balance = (at_hand.held > 0).then_some(at_hand.available);
    let tokens = at_hand.key_tokens.map(|room| room.left).into_iter().chain(balance).min();
    let beside = |more: i64| bounds.output.saturating_add(u64::try_from(more).unwrap_or_default());
    let by_tokens = tokens.map_or(u64::MAX, beside);
    let by_cost = at_hand.key_cost.map_or(u64::MAX, |KeyRoom { left: more, .. }| {
        let models: Vec<_> = models(calls).collect();
        let at = demanded.decision.as_of;
        let held = bounds.cost(call, models.iter().copied(), prices, at).map_or(0, |cost| cost.0);
        let room = NanoUsd(held.saturating_add(more));
        bounds.grown_to(bounds.output_most).output_for(call, &models, room, prices, at)
    });
    bounds.clone().capped(by_tokens.min(by_cost))
}

/// The limit that leaves a call that was held less than what would be of use to it; `costs` are those of what it needs and of what
/// was held.
fn too_little_room(
    demanded: &Demanded,
    costs: Option<(NanoUsd, NanoUsd)>,
    held: &Bounds,
    needed: &Bounds,
) -> CallError {
    let at_hand = &demanded.tokens;
    let decision = demanded.decision.clone();
    let as_of = decision.as_of;
    let needed = needed.tokens();
    let of_key = |reached: KeyLimitReached| {
        let resets_at = reached.resets_at(&KeyWindows::at(as_of));
        CallError::KeyLimit { reached, resets_at, as_of }
    };
    if let Some(KeyRoom { limit, left }) = at_hand.key_tokens
        && needed > left.saturating_add(held.tokens())
    {
        let used = limit.saturating_sub(left).saturating_sub(held.tokens());
        return of_key(KeyLimitReached::Tokens { limit, used, needed });
    }
    if let (Some(KeyRoom { limit, left }), Some((cost, held))) = (at_hand.key_cost, costs)
        && cost.0 > left.saturating_add(held.0)
    {
        let limit = NanoUsd(limit);
        let used = NanoUsd(limit.0.saturating_sub(left).saturating_sub(held.0));
        return of_key(KeyLimitReached::Cost { limit, used, needed: cost });
    }
    let available = at_hand.available.saturating_add(at_hand.held);
    CallError::Unaffordable { needed, available, decision: Box::new(decision) }
}

/// Why it was not held, and how much output there would be room for.
fn refused(demanded: &Demanded, bounds: &Bounds) -> (CallError, Option<u64>) {
    let decision = Box::new(demanded.decision.clone());
    if decision.reason != Reason::InsufficientTokens {
        return (CallError::NotAllowed(decision), None);
    }
    let available = demanded.tokens.available;
    (CallError::Unaffordable { needed: bounds.tokens(), available, decision }, left(available, bounds))
}

/// The output for which so many tokens leave room beside the input.
fn left(tokens: i64, bounds: &Bounds) -> Option<u64> {
    u64::try_from(tokens.saturating_sub(whole(bounds.input))).ok()
}
