//! Settling: what a call used is priced and booked, once. Booking that fails is retried, at most `TRIES` times; after
//! that the sweep settles the call by its last mark.

use std::time::Duration;

use domain::ai::{CallUsage, FinishReason, Speaker, TokenUsage, ToolCalls, UsageSource, unseen_output};
use domain::prices::{Cost, CostError, NanoUsd};
use domain::usage::HoldId;
use domain::users::UserId;
use ports::ai::{AiOperation, CallContent, CallReport};
use ports::usage::{BeyondHold, CallOutcome, CallResult, SaidMessage};
use tracing::{error, warn};

use super::answers::{AnswerPiece, CallReceipt};
use super::asker::Reader;
use super::attempts::UnansweredAttempts;
use super::call_task::{CallTask, End};
use super::estimates::whole;
use super::service::AiService;
use crate::usage::call_commands::{CallEnded, EndCallCommand, ReservedCallEnd};
use crate::usage::commands::{CommitError, ReservationError};

/// How often booking the end of a call is tried, and the pause between two tries.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);

impl AiService {
    /// Tries once to end a call.
    pub(super) async fn end_once(
        &self,
        reservation_id: HoldId,
        user_id: UserId,
        end: ReservedCallEnd,
    ) -> Result<CallEnded, ReservationError> {
        self.parts.usage.execute(EndCallCommand { reservation_id, user_id, end }).await
    }

    /// Ends a call, retried until it succeeds: a repeated end is booked once.
    pub(super) async fn end(
        &self,
        reservation_id: HoldId,
        user_id: UserId,
        end: ReservedCallEnd,
    ) -> Result<CallEnded, ReservationError> {
        for _ in 1..TRIES {
            match self.end_once(reservation_id, user_id, end.clone()).await {
                Err(ReservationError::Commit(
                    CommitError::QueueFull | CommitError::Contended | CommitError::Away(_) | CommitError::InDoubt(_),
                )) => tokio::time::sleep(PAUSE).await,
                ended => return ended,
            }
        }
        self.end_once(reservation_id, user_id, end).await
    }
}

impl CallTask {
    /// Releases the whole reservation.
    pub async fn release(&self) {
        let (hold_id, user_id) = (self.hold_id, self.call.asking.user_id);
        if let Err(error) = self.service.end(hold_id, user_id, ReservedCallEnd::Released).await {
            warn!(%error, call = %hold_id.0, "the hold of a call that came to nothing could not be given back; the sweep does");
        }
    }

    pub async fn settle(&mut self, end: End, mut reader: Reader) {
        let End { outcome, told, last } = end;
        let telling = async {
            if let Some(told) = told {
                reader.send(told).await;
            }
        };
        // A reader that does not read must not delay the booking.
        let (receipt, ()) = tokio::join!(self.close(outcome), telling);
        if let Some(last) = last {
            reader.send(AnswerPiece::Piece(last)).await;
        }
        if let Some(receipt) = receipt {
            reader.send(AnswerPiece::Settled(receipt)).await;
        }
    }

    /// Releases everything or books what was used, and reports it. `None` where the books could not be written.
    async fn close(&mut self, outcome: CallOutcome) -> Option<CallReceipt> {
        let may_be_billed = self.may_be_billed || self.unanswered.attempts > 0;
        let has_use = self.delivery.has_output() || self.delivery.has_report();
        let came_to_nothing = outcome == CallOutcome::Broken && !has_use && !may_be_billed;
        let receipt = if came_to_nothing || self.is_free() {
            self.release().await;
            Some(self.receipt(CallUsage::standard(TokenUsage::default()), None, 0))
        } else {
            self.book(outcome).await
        };
        let error = (outcome == CallOutcome::Broken).then_some("broken");
        let (usage, cost) = match &receipt {
            Some((usage, receipt)) => (Some(usage.clone()), receipt.cost),
            None => (None, None),
        };
        self.report(usage, cost, error);
        receipt.map(|(_, receipt)| receipt)
    }

    /// Books a call that no provider answered and one may bill: only its attempts are billed.
    pub async fn book_unanswered(&mut self, error: &'static str) {
        self.delivery.input_tokens = 0;
        let booked = if self.is_free() { None } else { self.book(CallOutcome::Broken).await };
        if self.is_free() {
            self.release().await;
        }
        let (usage, cost) = booked.map_or((None, None), |(usage, receipt)| (Some(usage), receipt.cost));
        self.report(usage, cost, Some(error));
    }

    /// Adds what attempts without an answer may cost: for each of them the estimated input, and the output that may
    /// have come out unseen.
    fn with_unanswered(&self, mut usage: CallUsage) -> CallUsage {
        let UnansweredAttempts { attempts, seconds } = self.unanswered;
        if attempts > 0 {
            let input = self.bounds.likely_input.saturating_mul(attempts);
            let output = unseen_output(seconds, self.bounds.output_most.saturating_mul(attempts));
            usage.tokens.uncached_input = usage.tokens.uncached_input.saturating_add(input);
            usage.tokens.visible_output = usage.tokens.visible_output.saturating_add(output);
            usage.source = if self.call.target.is_sandbox { UsageSource::Sandbox } else { UsageSource::Partial };
        }
        usage
    }

    /// Prices and books what was used. `None` where the books could not be written.
    async fn book(&mut self, outcome: CallOutcome) -> Option<(CallUsage, CallReceipt)> {
        let usage = self.with_unanswered(self.delivery.billed(self.call.target.is_sandbox));
        let odd_fields = self.delivery.odd_fields();
        if !odd_fields.is_empty() {
            warn!(?odd_fields, call = %self.hold_id.0, "the provider's usage was read as far as it is understood");
        }
        let cost = self.cost(&usage);
        let result = CallResult {
            provider: self.provider.id,
            model: self.model.to_string(),
            usage: usage.clone(),
            reported: self.delivery.reported.clone(),
            cost: cost.clone(),
            outcome,
            latency_ms: Some(whole(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))),
            session_id: self.call.keeping.as_ref().map(|keeping| keeping.session_id.0),
            messages: self.messages(&usage, cost.as_ref()),
            beyond: self.beyond_hold(&usage, cost.as_ref()),
        };
        let (hold_id, user_id) = (self.hold_id, self.call.asking.user_id);
        match self.service.end(hold_id, user_id, ReservedCallEnd::Settled(Box::new(result))).await {
            Ok(ended) => Some(self.receipt(usage, cost.map(|cost| cost.amount), ended.tokens_spent)),
            Err(error) => {
                error!(%error, call = %hold_id.0, "a call could not be settled; the sweep settles it by its last mark");
                None
            }
        }
    }

    /// The cost by the prices at the call's beginning. The built-in provider bills nothing.
    fn cost(&self, usage: &CallUsage) -> Option<Cost> {
        if self.call.target.is_sandbox {
            return None;
        }
        match self.prices.cost(self.provider.id, &self.model, usage, self.began_at) {
            Ok(cost) => {
                if !cost.assumed.is_empty() {
                    let kinds = &cost.assumed;
                    warn!(?kinds, model = %self.model, call = %self.hold_id.0, "kinds without a price were billed as others; an administrator adds one");
                    self.service.parts.observer.assumed_prices(self.provider.id, kinds);
                }
                Some(cost)
            }
            Err(CostError::UnpricedModel { .. }) => None,
            Err(why) => {
                error!(%why, call = %self.hold_id.0, "a call costs more than can be counted; it is billed what was held for it");
                let amount = NanoUsd(self.cost_of(self.bounds.output));
                Some(Cost { amount, version: String::new(), assumed: Vec::new() })
            }
        }
    }

    /// What was used beyond the reservation, which happens where a provider counts more than could be estimated.
    fn beyond_hold(&self, usage: &CallUsage, cost: Option<&Cost>) -> BeyondHold {
        // Without a limit, the reservation is not extended for an answer that grows.
        let output = if self.is_limited() { self.bounds.output } else { self.bounds.output_most };
        let tokens = (whole(usage.tokens.total()) - self.bounds.grown_to(output).tokens()).max(0);
        let held = || self.cost_of(output);
        let beyond = BeyondHold { tokens, cost_nano_usd: cost.map_or(0, |cost| (cost.amount.0 - held()).max(0)) };
        if !beyond.is_nothing() {
            let BeyondHold { tokens, cost_nano_usd } = beyond;
            warn!(tokens, cost_nano_usd, model = %self.model, call = %self.hold_id.0, "a call used more than was held for it");
            self.service.parts.observer.beyond_hold(self.provider.id);
        }
        beyond
    }

    /// The messages to store: the user's, with the input's cost, and the answer with the rest.
    fn messages(&self, usage: &CallUsage, cost: Option<&Cost>) -> Vec<SaidMessage> {
        let Some(keeping) = &self.call.keeping else { return Vec::new() };
        let total = cost.map_or(0, |cost| cost.amount.0);
        let input_only = TokenUsage {
            visible_output: 0,
            reasoning_output: 0,
            audio_output: 0,
            image_output: 0,
            tool_calls: ToolCalls::default(),
            ..usage.tokens
        };
        let of_input = CallUsage { tokens: input_only, ..usage.clone() };
        let input = self.cost_of_input(&of_input).min(total);
        let said = SaidMessage {
            speaker: Speaker::User,
            content: keeping.said.clone(),
            tokens: whole(keeping.said_tokens),
            cost: NanoUsd(input),
        };
        let answer = SaidMessage {
            speaker: Speaker::Assistant,
            content: self.text.clone(),
            tokens: whole(usage.tokens.output()),
            cost: NanoUsd(total - input),
        };
        vec![said, answer]
    }

    fn cost_of_input(&self, input: &CallUsage) -> i64 {
        if self.call.target.is_sandbox {
            return 0;
        }
        self.prices.cost(self.provider.id, &self.model, input, self.began_at).map_or(0, |cost| cost.amount.0)
    }

    fn receipt(&self, usage: CallUsage, cost: Option<NanoUsd>, tokens_spent: i64) -> (CallUsage, CallReceipt) {
        let finish: Option<FinishReason> = self.delivery.finish;
        let receipt = CallReceipt {
            call_id: self.hold_id.0,
            usage: usage.tokens,
            source: usage.source,
            cost,
            tokens_spent,
            finish,
            latency_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        (usage, receipt)
    }

    pub fn report(&self, usage: Option<CallUsage>, cost: Option<NanoUsd>, error: Option<&'static str>) {
        let operation = match &self.call.content {
            CallContent::Native(native) => native.operation,
            CallContent::Conversation(_) => AiOperation::Chat,
        };
        self.service.parts.observer.ended(&CallReport {
            provider: self.provider.id,
            model: self.call.target.model.clone(),
            operation,
            streamed: self.call.streamed,
            usage,
            cost,
            finish: self.delivery.finish,
            request_id: self.request_id.clone(),
            session_id: self.call.keeping.as_ref().map(|keeping| keeping.session_id.0),
            first_piece: self.first_piece,
            whole: self.began.elapsed(),
            error,
            unread: self.unread,
        });
    }
}
