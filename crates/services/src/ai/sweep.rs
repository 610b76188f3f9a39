//! The sweep: calls whose process is gone, and keys that were revoked while their calls run.
//!
//! A hold for which nothing was sent is given back by the sweep of holds. One that was sent is settled at an estimate: what went
//! in, as it was counted, and what had come out by the call's last mark. It is flagged `partial`, or `sandbox`. One that cannot be
//! settled is left out of the next runs for a pause that doubles, so that it keeps no other from being settled.

use domain::ai::{CallUsage, Delivery};
use domain::usage::CallTerms;
use ports::store::{Scope, StoreError};
use ports::usage::{BeyondHold, CallOutcome, CallResult, DueCall};
use tracing::{error, info, warn};

use super::service::AiService;
use crate::usage::commands::HoldAction;

/// How many calls one run settles at most.
const SWEPT_AT_ONCE: u64 = 200;

impl AiService {
    /// Settles the calls that nobody speaks for any more, a bounded number of them; says how many were due.
    pub async fn sweep_calls(&self) -> Result<usize, StoreError> {
        let mut work = self.parts.store.begin(Scope::SERVICE).await?;
        let due = work.usage().list_due_calls(&self.postponed.excluded(), SWEPT_AT_ONCE).await?;
        work.commit().await?;
        if due.is_empty() {
            return Ok(0);
        }
        let prices = self.parts.prices.current().await?;
        let count = due.len();
        let mut unreadable = Vec::new();
        for DueCall { hold_id, user_id, call } in due {
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
            match self.change(hold_id, user_id, HoldAction::SettleCall(Box::new(result))).await {
                Ok(changed) if changed.replayed => self.postponed.done(hold_id),
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

    /// Ends the calls that run here by keys that are not usable any more. One statement, and none where no key is at work.
    pub async fn end_revoked(&self) -> Result<(), StoreError> {
        let keys = self.registry.keys();
        if keys.is_empty() {
            return Ok(());
        }
        let mut work = self.parts.store.begin(Scope::SERVICE).await?;
        let usable = work.api_keys().list_usable(&keys).await?;
        work.commit().await?;
        self.registry.end_revoked(&keys, &usable);
        Ok(())
    }
}

/// What a call is settled at of which only its last mark is known.
fn estimated(terms: &CallTerms) -> CallUsage {
    let delivery = Delivery { output_tokens: terms.delivered_tokens, ..Delivery::of_input(terms.input_tokens) };
    delivery.billed(terms.is_sandbox)
}
