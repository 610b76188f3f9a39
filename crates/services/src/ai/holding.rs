//! Holding: reserves the most that a call can use before it is sent, or less where that is allowed and all that can be
//! paid.
//!
//! Promises: the reservation covers the input, as far as that can be estimated. A call with input that cannot be seen
//! is reserved at its model's input window; where that window is not known, it is refused under a limit of tokens or of
//! costs.
//!
//! A stream under limits reserves all of its bound where that is at most half of what the limits leave, and otherwise
//! half of what they leave, at least the assumed first part. Its provider is sent a bound that is no more than the
//! reservation, so that parallel streams, hidden reasoning included, never use more together than the limits allow.
//! If the caller or the settings demand it, the whole bound is reserved or the call is refused.
//!
//! A fallback that costs more than the first model is passed over where the key cannot pay for it.
//!
//! Costs: one command of the group commit, one more for each time that the call is lowered or loses a fallback, and one more for a stream
//! whose bound is beyond the first part.

use chrono::{DateTime, Utc};
use domain::entitlements::{Decision, Reason};
use domain::prices::{NanoUsd, PriceList};
use domain::usage::{ApiKeyWindows, CallPhase};
use ports::ai::ProviderCall;
use tracing::info;

use super::calls::Call;
use super::errors::{CallError, KeyLimitReached};
use super::estimates::{CallEstimate, whole};
use super::service::{AiService, ReservedCall, models};
use crate::usage::call_commands::{
    CallGrant, CallGrowth, KeyRoom, MarkCallCommand, MarkCallOutcome, ReserveCallOutcome, ReservedCallEnd,
};

/// How often a call is lowered at most before it is refused: its room can shrink between two tries.
const LOWERINGS: usize = 3;

impl AiService {
    /// Reserves the most that the call can use; less where that is allowed and all that can be paid.
    pub(super) async fn hold(&self, call: &Call) -> Result<ReservedCall, CallError> {
        let (prices, now) = (self.parts.prices.current().await?, self.parts.clock.now());
        let may_lower = call.output.may_be_lowered || self.parts.settings.may_lower || self.is_elastic(call);
        let mut calls = self.calls(call).await?;
        let mut bounds = self.bounds(call, &calls).await?;
        let is_unbounded = bounds.is_unbounded;
        if is_unbounded && call.asking.budgets.limit_growth() {
            return Err(CallError::Unbounded(call.target.model.to_string()));
        }
        let mut lowerings = if may_lower { LOWERINGS } else { 0 };
        loop {
            let reserved_cost = self.max_cost(call, &bounds, &calls, &prices, now).await?;
            let command = self.reserve_command(call, &bounds, reserved_cost, now);
            let (error, room) = match self.parts.usage.execute(command).await? {
                ReserveCallOutcome::Reserved(grant) if is_unbounded && grant.tokens_reserved > 0 => {
                    self.give_back(call, &grant).await;
                    return Err(CallError::Unbounded(call.target.model.to_string()));
                }
                ReserveCallOutcome::Reserved(grant) => {
                    let of_use = bounds.of_use().min(bounds.output_most);
                    let wanted = output_of_room(call, &bounds, &grant, &calls, &prices);
                    if wanted < of_use {
                        self.give_back(call, &grant).await;
                        if grant.key_cost.is_some() && without_dearest(call, &bounds, &mut calls, &prices, now) {
                            bounds = self.bounds(call, &calls).await?;
                            continue;
                        }
                        let needed = bounds.grown_to(of_use);
                        let cost = self.max_cost(call, &needed, &calls, &prices, now).await?;
                        return Err(too_little_room(grant, cost.zip(reserved_cost), &bounds, &needed));
                    }
                    let wanted = bounds.grown_to(wanted);
                    let cost = self.max_cost(call, &wanted, &calls, &prices, now).await?;
                    let bounds = self.hold_more(call, &grant, bounds, wanted, cost).await;
                    for call in &mut calls {
                        call.max_output_tokens = bounds.told();
                    }
                    return Ok(ReservedCall { bounds, grant, calls, prices });
                }
                ReserveCallOutcome::Refused { decision, tokens_available } => {
                    refused(decision, tokens_available, &bounds)
                }
                ReserveCallOutcome::KeyLimit { reached, resets_at, as_of } => {
                    let room = match reached {
                        KeyLimitReached::Requests { .. } => None,
                        KeyLimitReached::Tokens { limit, used, .. } => left(limit - used, &bounds),
                        KeyLimitReached::Cost { limit, used, .. } => {
                            let room = NanoUsd((limit.0 - used.0).max(0));
                            if without_dearest(call, &bounds, &mut calls, &prices, now) {
                                bounds = self.bounds(call, &calls).await?;
                                continue;
                            }
                            let models: Vec<_> = models(&calls).collect();
                            Some(bounds.output_for(call, &models, room, &prices, now))
                        }
                    };
                    (CallError::KeyLimit { reached, resets_at, as_of }, room)
                }
            };
            let Some(lowered) = room.filter(|_| lowerings > 0).and_then(|room| bounds.lowered(room)) else {
                return Err(error);
            };
            (bounds, lowerings) = (lowered, lowerings - 1);
        }
    }

    /// Extends the reservation of a stream beyond its first part. Where that is refused meanwhile, the first part is
    /// all.
    async fn hold_more(
        &self,
        call: &Call,
        grant: &CallGrant,
        bounds: CallEstimate,
        wanted: CallEstimate,
        cost: Option<NanoUsd>,
    ) -> CallEstimate {
        let is_limited = grant.tokens_reserved > 0 || call.asking.budgets.limit_growth();
        if !is_limited || wanted.output <= bounds.output {
            let held = bounds.output;
            return if is_limited { bounds.capped(held) } else { bounds };
        }
        let growth = CallGrowth {
            tokens: wanted.tokens(),
            cost: cost.map_or(0, |cost| cost.0),
            budgets: call.asking.budgets.clone(),
        };
        let command = MarkCallCommand {
            reservation_id: grant.reservation_id,
            user_id: call.asking.user_id,
            phase: CallPhase::Reserved,
            provider: call.target.provider.id,
            model: call.target.model.clone(),
            delivered_tokens: 0,
            growth: Some(growth),
            ttl: self.parts.settings.hold_ttl,
        };
        let has_grown = self.parts.usage.execute(command).await == Ok(MarkCallOutcome::Marked);
        let held = if has_grown { wanted } else { bounds };
        let output = held.output;
        held.capped(output)
    }

    /// The widest input window of the models that may answer, where it is known for all of them.
    pub(super) async fn window(&self, call: &Call, calls: &[ProviderCall]) -> Result<Option<u64>, CallError> {
        let mut widest = call.target.max_input_tokens;
        for other in calls.iter().skip(1) {
            let known = self.parts.prices.find(Some(other.provider.id), &other.model).await?;
            widest = widest.zip(known.and_then(|known| known.max_input_tokens)).map(|(one, other)| one.max(other));
        }
        Ok(widest)
    }

    /// Releases a reservation that is not enough, or that may not be enough since the input is unbounded.
    async fn give_back(&self, call: &Call, grant: &CallGrant) {
        let id = grant.reservation_id;
        if let Err(error) = self.end_once(id, call.asking.user_id, ReservedCallEnd::Released).await {
            tracing::warn!(%error, call = %id.0, "a hold that was not enough could not be given back; the sweep does");
        }
    }
}

/// Passes the dearest fallback over, where one costs more than the first model: a call that a key can pay at its own
/// model is not refused, or lowered, for the sake of a fallback. Returns whether there was one.
fn without_dearest(
    call: &Call,
    bounds: &CallEstimate,
    calls: &mut Vec<ProviderCall>,
    prices: &PriceList,
    at: DateTime<Utc>,
) -> bool {
    let cost = |one: &ProviderCall| bounds.cost(call, [(one.provider, &one.model)], prices, at).ok();
    let own = calls.first().and_then(cost);
    let fallbacks = calls.iter().enumerate().skip(1);
    let dearest = fallbacks.filter_map(|(place, one)| Some((cost(one)?, place))).max();
    let Some((_, place)) = dearest.filter(|(cost, _)| Some(*cost) > own) else { return false };
    let model = calls.remove(place).model;
    info!(model = %call.target.model, fallback = %model, "a fallback is passed over: the key cannot pay for it");
    true
}

/// How much output a call with a reserved first part may reserve in total: its bound, or half of what the limits leave,
/// and more of that where half is of no use.
fn output_of_room(
    call: &Call,
    bounds: &CallEstimate,
    grant: &CallGrant,
    calls: &[ProviderCall],
    prices: &PriceList,
) -> u64 {
    let balance = (grant.tokens_reserved > 0).then_some(grant.tokens_available);
    let tokens = grant.key_tokens.map(|room| room.left).into_iter().chain(balance).min();
    let with_part = |divisor: i64| {
        let by_tokens = tokens
            .map_or(u64::MAX, |left| bounds.output.saturating_add(u64::try_from(left / divisor).unwrap_or_default()));
        let by_cost = grant.key_cost.map_or(u64::MAX, |KeyRoom { left, .. }| {
            let models: Vec<_> = models(calls).collect();
            let at = grant.decision.as_of;
            let held = bounds.cost(call, models.iter().copied(), prices, at).map_or(0, |cost| cost.0);
            let room = NanoUsd(held.saturating_add(left / divisor));
            bounds.grown_to(bounds.output_most).output_for(call, &models, room, prices, at)
        });
        by_tokens.min(by_cost).max(bounds.output).min(bounds.output_most)
    };
    with_part(2).max(bounds.of_use().min(with_part(1)))
}

/// The limit that leaves a reserved call less than would be of use to it; `costs` are the cost of what it needs and the
/// cost of what was reserved.
fn too_little_room(
    grant: CallGrant,
    costs: Option<(NanoUsd, NanoUsd)>,
    held: &CallEstimate,
    needed: &CallEstimate,
) -> CallError {
    let as_of = grant.decision.as_of;
    let needed = needed.tokens();
    let of_key = |reached: KeyLimitReached| {
        let resets_at = reached.resets_at(&ApiKeyWindows::at(as_of));
        CallError::KeyLimit { reached, resets_at, as_of }
    };
    if let Some(KeyRoom { limit, left }) = grant.key_tokens
        && needed > left.saturating_add(held.tokens())
    {
        let used = limit.saturating_sub(left).saturating_sub(held.tokens());
        return of_key(KeyLimitReached::Tokens { limit, used, needed });
    }
    if let (Some(KeyRoom { limit, left }), Some((cost, held))) = (grant.key_cost, costs)
        && cost.0 > left.saturating_add(held.0)
    {
        let limit = NanoUsd(limit);
        let used = NanoUsd(limit.0.saturating_sub(left).saturating_sub(held.0));
        return of_key(KeyLimitReached::Cost { limit, used, needed: cost });
    }
    let available = grant.tokens_available.saturating_add(grant.tokens_reserved);
    CallError::Unaffordable { needed, available, decision: Box::new(grant.decision) }
}

/// Why the reservation was refused, and how much output there would be room for.
fn refused(decision: Decision, available: i64, bounds: &CallEstimate) -> (CallError, Option<u64>) {
    let decision = Box::new(decision);
    if decision.reason != Reason::InsufficientTokens {
        return (CallError::NotAllowed(decision), None);
    }
    (CallError::Unaffordable { needed: bounds.tokens(), available, decision }, left(available, bounds))
}

/// The output that this many tokens leave room for beside the input.
fn left(tokens: i64, bounds: &CallEstimate) -> Option<u64> {
    u64::try_from(tokens.saturating_sub(whole(bounds.input))).ok()
}
