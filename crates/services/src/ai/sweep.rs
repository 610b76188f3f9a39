//! The sweep: settles calls whose process is gone, and ends calls whose credential has ended.
//!
//! A reservation for which nothing was sent is released by the sweep of reservations. One that was sent is settled at
//! an estimate: the counted input, and the output up to the call's last mark. It is flagged `partial`, or `sandbox`.
//! One that cannot be settled is left out of the next runs for a pause that doubles, so that it does not keep others
//! from being settled.

use std::collections::HashSet;

use domain::ai::{CallUsage, Delivery};
use domain::usage::CallTerms;
use domain::users::UserId;
use ports::store::{Scope, StoreError};
use ports::usage::{BeyondHold, CallOutcome, CallResult, DueCall};
use tracing::{error, info, warn};
use uuid::Uuid;

use super::answers::BreakOff;
use super::registry::RunningBy;
use super::service::AiService;
use crate::usage::call_commands::ReservedCallEnd;

/// How many calls one run settles at most.
const SWEPT_AT_ONCE: u64 = 200;

impl AiService {
    /// Settles calls whose process is gone, a bounded number of them; returns how many were due.
    pub async fn sweep_calls(&self) -> Result<usize, StoreError> {
        let mut work = self.parts.store.begin(Scope::SERVICE).await?;
        let due = work.call_log().list_due(&self.postponed.excluded(), SWEPT_AT_ONCE).await?;
        work.commit().await?;
        if due.is_empty() {
            return Ok(0);
        }
        let prices = self.parts.prices.current().await?;
        let count = due.len();
        let mut unreadable = Vec::new();
        for DueCall { reservation_id: hold_id, user_id, call } in due {
            let Some(call) = call else {
                self.postponed.failed(hold_id);
                unreadable.push(hold_id);
                continue;
            };
            let CallTerms { provider, model, is_sandbox, began_at, session_id, .. } = call.terms.clone();
            let usage = estimated(&call.terms);
            let cost = (!is_sandbox).then(|| prices.cost(provider, &model, &usage, began_at).ok()).flatten();
            let result = CallResult {
                provider,
                model: model.to_string(),
                usage,
                reported: None,
                cost,
                outcome: CallOutcome::Swept,
                latency_ms: None,
                session_id,
                messages: Vec::new(),
                beyond: BeyondHold::default(),
            };
            match self.end_once(hold_id, user_id, ReservedCallEnd::Settled(Box::new(result))).await {
                Ok(ended) if ended.replayed => self.postponed.done(hold_id),
                Ok(_) => {
                    self.postponed.done(hold_id);
                    info!(call = %hold_id.0, phase = call.phase.as_str(), "a call without its process was settled");
                }
                Err(error) => {
                    let pause = self.postponed.failed(hold_id);
                    warn!(%error, call = %hold_id.0, ?pause, "a call without its process could not be settled");
                }
            }
        }
        if let Some(first) = unreadable.first() {
            let calls = unreadable.len();
            error!(calls, first = %first.0, "calls without their process cannot be read; their reservations stay");
        }
        Ok(count)
    }

    /// Ends the calls that run here by credentials that have ended: keys that are no longer usable, tokens that have
    /// expired or whose session has ended, and those of profiles and identities that are gone or banned. Two statements
    /// at most, and none where no call runs.
    pub async fn end_revoked(&self) -> Result<(), StoreError> {
        let running = self.registry.callers();
        if running.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = running.iter().filter_map(|by| by.api_key_id).collect::<HashSet<_>>().into_iter().collect();
        let holders: Vec<_> = running.iter().map(session_holder).collect::<HashSet<_>>().into_iter().collect();
        let mut work = self.parts.store.begin(Scope::SERVICE).await?;
        let usable = if keys.is_empty() { Vec::new() } else { work.api_keys().list_usable(&keys).await? };
        let live = work.identity().list_live(&holders).await?;
        work.commit().await?;
        let now = self.parts.clock.now();
        let ended: HashSet<_> =
            holders.into_iter().zip(live).filter(|(_, is_live)| !is_live).map(|(holder, _)| holder).collect();
        self.registry.end(|by| match by.api_key_id {
            Some(key) if keys.contains(&key) && !usable.contains(&key) => Some(BreakOff::KeyRevoked),
            _ if ended.contains(&session_holder(by)) => Some(BreakOff::TokenEnded),
            None if by.token.is_some_and(|token| token.is_over(now)) => Some(BreakOff::TokenEnded),
            _ => None,
        });
        Ok(())
    }
}

/// The session that a call runs in; a key has none.
fn session_holder(by: &RunningBy) -> (UserId, Option<Uuid>) {
    (by.user_id, by.token.and_then(|token| token.session_id))
}

/// The usage that a call is settled at if only its last mark is known.
fn estimated(terms: &CallTerms) -> CallUsage {
    let delivery = Delivery { output_tokens: terms.delivered_tokens, ..Delivery::of_input(terms.input_tokens) };
    delivery.billed(terms.is_sandbox)
}
