//! The task of one call: it sends the call, follows the answer piece by piece, and settles it.
//!
//! The reservation records how far the call has come, so that a sweep can settle it without its process. It says
//! `dispatched` once the call has lasted `MARK_AFTER`; a call that is killed before is released, though the provider
//! may have seen it. The call does not wait for its marks.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::ai::{Delivery, ModelId, ProviderProfile};
use domain::prices::PriceList;
use domain::usage::{CallPhase, HoldId};
use futures_util::StreamExt;
use ports::ai::{AiOperation, CallContent, CallReservation, ProviderCall, ProviderReply, ReplyPiece};
use ports::usage::CallOutcome;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::answers::{AnswerHead, AnswerPiece, BreakOff};
use super::asker::{Asker, PassedComments, Reader};
use super::attempts::{AttemptTerms, SentCall, UnansweredAttempts};
use super::calls::{Call, CallerContext};
use super::errors::CallError;
use super::estimates::CallEstimate;
use super::registry::RunningBy;
use super::service::{AiService, ReservedCall};
use crate::usage::call_commands::MarkCallCommand;

/// How long a call lasts before its reservation is marked with its progress.
const MARK_AFTER: Duration = Duration::from_millis(20);

/// The expected content type of a stream.
const EVENTS: &str = "text/event-stream";

/// How much text of an answer is kept in a conversation, in bytes.
const KEPT_MAX: usize = 1024 * 1024;

/// The number of tokens that may pass beyond the reservation, whatever its size.
const BEYOND_HOLD_LEAST: u64 = 64;

pub(super) struct CallTask {
    pub service: Arc<AiService>,
    pub call: Call,
    pub hold_id: HoldId,
    pub bounds: CallEstimate,
    /// Whether it is paid from the token balance, so that it cannot go beyond the reservation.
    pub lies_on_tokens: bool,
    pub prices: Arc<PriceList>,
    pub began: Instant,
    pub began_at: DateTime<Utc>,
    pub first_piece: Option<Duration>,
    pub request_id: Option<String>,
    /// The provider and the model that answer.
    pub provider: ProviderProfile,
    pub model: ModelId,
    pub delivery: Delivery,
    /// How many events of the answer could not be parsed.
    pub unread: u64,
    /// The text of the answer, if it is stored.
    pub text: String,
    /// Attempts beside the one that is followed.
    pub unanswered: UnansweredAttempts,
    /// Since when no part of the answer has arrived.
    silent_since: Instant,
    /// Whether the call may be billed though nothing arrived.
    pub may_be_billed: bool,
    calls: Vec<ProviderCall>,
    ending: watch::Receiver<Option<BreakOff>>,
    next_mark: Instant,
}

/// How a reply ended.
pub(super) struct End {
    pub outcome: CallOutcome,
    /// What the reader is sent before the call is settled.
    pub told: Option<AnswerPiece>,
    /// The provider's last piece, which the reader is sent once the call is settled.
    pub last: Option<ReplyPiece>,
}

/// A running call; dropping it removes the call from the registry, however its task ends.
struct Running {
    service: Arc<AiService>,
    hold_id: HoldId,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.service.registry.leave(self.hold_id);
    }
}

impl CallTask {
    pub fn new(service: Arc<AiService>, call: Call, granted: ReservedCall, began: Instant) -> (Self, CallReservation) {
        let ReservedCall { bounds, grant, calls, prices } = granted;
        let hold = CallReservation::granted(grant.reservation_id);
        let ending = service.registry.enter(hold.id(), RunningBy::of(&call.asking));
        let task = Self {
            hold_id: hold.id(),
            lies_on_tokens: grant.tokens_reserved > 0,
            began_at: grant.decision.as_of,
            first_piece: None,
            request_id: None,
            provider: call.target.provider,
            model: call.target.model.clone(),
            delivery: Delivery { output_most: bounds.output_most, ..Delivery::of_input(bounds.likely_input) },
            unread: 0,
            text: String::new(),
            unanswered: UnansweredAttempts::default(),
            silent_since: Instant::now(),
            may_be_billed: false,
            next_mark: Instant::now() + MARK_AFTER,
            service,
            call,
            bounds,
            prices,
            began,
            calls,
            ending,
        };
        (task, hold)
    }

    pub async fn run(mut self, hold: CallReservation, asker: Asker) {
        let Asker { head, comments, pieces } = asker;
        let _running = Running { service: Arc::clone(&self.service), hold_id: self.hold_id };
        match self.send(hold, comments).await {
            Ok((reply, which)) => {
                let answering = self.head(&reply, which);
                let gone = head.send(Ok(answering)).is_err();
                let mut reader = Reader(Some(pieces).filter(|_| !gone));
                let end = self.follow(reply, &mut reader).await;
                self.settle(end, reader).await;
            }
            Err(error) => {
                if matches!(&error, CallError::BrokenOff(broken) if broken.leaves_a_bill()) {
                    self.unanswered.add(self.silent_since);
                }
                if self.unanswered.attempts > 0 {
                    self.book_unanswered(error.word()).await;
                } else {
                    self.release().await;
                    self.report(None, None, Some(error.word()));
                }
                // The caller may be gone.
                head.send(Err(error)).ok();
            }
        }
    }

    /// Sends the call and waits for the first piece of its answer.
    async fn send(
        &mut self,
        hold: CallReservation,
        comments: Arc<PassedComments>,
    ) -> Result<(ProviderReply, usize), CallError> {
        let service = Arc::clone(&self.service);
        let calls = std::mem::take(&mut self.calls);
        let CallerContext { user_id, .. } = self.call.asking;
        let terms = AttemptTerms { user_id, retried_by_caller: self.call.retried_by_caller, comments };
        let sending = service.parts.attempts.call(hold, &calls, &terms);
        tokio::pin!(sending);
        let sent = loop {
            tokio::select! {
                biased;
                sent = &mut sending => break sent,
                broken = broken_off(&mut self.ending) => return Err(CallError::BrokenOff(broken)),
                () = sleep_until(self.next_mark) => self.mark(CallPhase::Dispatched),
            }
        };
        if !matches!(&sent, Ok(SentCall { place: 0, .. })) {
            service.tell_passed_over(&self.call).await;
        }
        let SentCall { reply, place: which, at, unanswered } = sent.map_err(|unsent| {
            self.unanswered = unsent.unanswered;
            CallError::from(unsent.failure)
        })?;
        (self.unanswered, self.silent_since) = (unanswered, at);
        if let Some(answered) = calls.get(which) {
            (self.provider, self.model) = (answered.provider, answered.model.clone());
        }
        Ok((reply, which))
    }

    fn head(&mut self, reply: &ProviderReply, which: usize) -> AnswerHead {
        self.first_piece = Some(self.began.elapsed());
        self.request_id.clone_from(&reply.request_id);
        if which > 0 {
            tracing::info!(provider = %self.provider.id, model = %self.model, "a fallback answers");
        }
        AnswerHead {
            request_id: reply.request_id.clone(),
            content_type: reply.content_type.clone(),
            headers: reply.headers.clone(),
            ..self.expected_head()
        }
    }

    /// The head as expected before any part of the answer has arrived.
    pub fn expected_head(&self) -> AnswerHead {
        AnswerHead {
            call_id: self.hold_id.0,
            provider: self.provider,
            model: self.model.clone(),
            is_sandbox: self.call.target.is_sandbox,
            request_id: None,
            content_type: EVENTS.to_owned(),
            headers: Vec::new(),
            lowered_to: self.bounds.lowered_to(),
        }
    }

    async fn follow(&mut self, mut reply: ProviderReply, reader: &mut Reader) -> End {
        self.next_mark = self.next_mark.min(Instant::now() + MARK_AFTER);
        let mut drain_until = None;
        let end = loop {
            if reader.0.is_none() && drain_until.is_none() {
                drain_until = Some(Instant::now() + self.service.parts.settings.drain);
            }
            let drained = async {
                match drain_until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            let piece = tokio::select! {
                biased;
                broken = broken_off(&mut self.ending) => break self.broken(broken),
                // Before the next piece, since a quick provider always has one ready.
                () = drained => break End::of(CallOutcome::Left),
                () = sleep_until(self.next_mark) => {
                    self.mark(CallPhase::FirstByte);
                    continue;
                }
                piece = reply.pieces.next() => piece,
                () = reader.left() => {
                    reader.0 = None;
                    continue;
                }
            };
            let piece = match piece {
                Some(Ok(piece)) => piece,
                Some(Err(fault)) => {
                    break self.broken(BreakOff::Provider(fault));
                }
                None => {
                    self.delivery.is_whole = true;
                    break End::of(CallOutcome::Ok);
                }
            };
            self.take(&piece);
            if piece.is_last {
                self.delivery.is_whole = true;
                break End { last: Some(piece), ..End::of(CallOutcome::Ok) };
            }
            if let Some(broken) = self.hand_on(reader, AnswerPiece::Piece(piece)).await {
                break self.broken(broken);
            }
            // Time that the reader took is not silence of the provider.
            self.silent_since = Instant::now();
            if self.is_beyond_hold() {
                break End::told(CallOutcome::Cut, AnswerPiece::Cut);
            }
        };
        self.note_silence();
        end
    }

    fn broken(&mut self, broken: BreakOff) -> End {
        self.may_be_billed = broken.leaves_a_bill();
        End::told(CallOutcome::Broken, AnswerPiece::Broken(broken))
    }

    /// Records the silence up to now.
    fn note_silence(&mut self) {
        self.delivery.be_silent(self.silent_since.elapsed().as_secs());
        self.silent_since = Instant::now();
    }

    /// Sends a piece to the reader, which may take a while: meanwhile the reservation is marked and the call can be
    /// broken off.
    async fn hand_on(&mut self, reader: &mut Reader, piece: AnswerPiece) -> Option<BreakOff> {
        let sending = reader.send(piece);
        tokio::pin!(sending);
        loop {
            tokio::select! {
                biased;
                () = &mut sending => return None,
                broken = broken_off(&mut self.ending) => return Some(broken),
                () = sleep_until(self.next_mark) => self.mark(CallPhase::FirstByte),
            }
        }
    }

    fn take(&mut self, piece: &ReplyPiece) {
        // A ping counts as silence.
        if !piece.deltas.is_empty() || piece.hidden_tokens > 0 || piece.usage.is_some() {
            self.note_silence();
        }
        self.unread = self.unread.saturating_add(piece.unread);
        let texts = piece.deltas.iter().map(domain::ai::AnswerDelta::text).filter(|text| !text.is_empty());
        let tokens = texts.map(|text| self.service.count(text)).fold(piece.hidden_tokens, u64::saturating_add);
        self.delivery.add(&piece.deltas, tokens, piece.usage.clone());
        if self.call.keeping.is_some() {
            for delta in &piece.deltas {
                if let domain::ai::AnswerDelta::Text(text) = delta
                    && self.text.len() + text.len() <= KEPT_MAX
                {
                    self.text.push_str(text);
                }
            }
        }
    }

    /// Whether a limit of tokens or of costs applies to the call.
    pub(super) fn is_limited(&self) -> bool {
        self.lies_on_tokens || self.call.asking.budgets.limit_growth()
    }

    /// Whether the output goes far beyond the bound that its provider was sent, by what was delivered or reported. Our
    /// count of a foreign model's tokens is approximate, so half more is let pass.
    fn is_beyond_hold(&self) -> bool {
        if !self.is_limited() || self.delivery.finish.is_some() {
            return false;
        }
        let told = self.delivery.reported.as_ref().map_or(0, |reported| reported.read().usage.tokens.output());
        let came_out = self.delivery.output_tokens.max(told);
        let most = self.bounds.output.saturating_add(self.bounds.output / 2).saturating_add(BEYOND_HOLD_LEAST);
        came_out > most
    }

    /// Records in the reservation how far the call has come, and that it goes on. The call does not wait for it.
    fn mark(&mut self, phase: CallPhase) {
        let ttl = self.service.parts.settings.hold_ttl;
        self.next_mark = Instant::now() + (ttl / 3).to_std().unwrap_or(MARK_AFTER);
        let command = self.progress(phase);
        let (service, hold_id) = (Arc::clone(&self.service), self.hold_id);
        tokio::spawn(async move {
            if let Err(error) = service.parts.usage.execute(command).await {
                tracing::debug!(%error, call = %hold_id.0, "a call could not mark its hold; the next mark says the same");
            }
        });
    }

    /// The most that it costs with this output at the model that answers; 0 without a price.
    pub(super) fn cost_of(&self, output: u64) -> i64 {
        let models = [(self.provider, &self.model)];
        let most = self.bounds.grown_to(output).cost(&self.call, models, &self.prices, self.began_at);
        most.map_or(0, |cost| cost.0)
    }

    /// The output so far, with what may have come out unseen.
    fn output_so_far(&self) -> u64 {
        let mut delivery = Delivery { reported: None, ..self.delivery.clone() };
        delivery.be_silent(self.silent_since.elapsed().as_secs());
        delivery.output_so_far()
    }

    fn progress(&self, phase: CallPhase) -> MarkCallCommand {
        MarkCallCommand {
            reservation_id: self.hold_id,
            user_id: self.call.asking.user_id,
            phase,
            provider: self.provider.id,
            model: self.model.clone(),
            delivered_tokens: self.output_so_far(),
            growth: None,
            ttl: self.service.parts.settings.hold_ttl,
        }
    }

    /// Whether it costs nothing, so that its reservation is released.
    pub fn is_free(&self) -> bool {
        matches!(&self.call.content, CallContent::Native(native) if native.operation == AiOperation::CountTokens)
    }
}

impl End {
    const fn of(outcome: CallOutcome) -> Self {
        Self { outcome, told: None, last: None }
    }

    const fn told(outcome: CallOutcome, told: AnswerPiece) -> Self {
        Self { outcome, told: Some(told), last: None }
    }
}

/// Returns when the call is broken off, and never otherwise.
async fn broken_off(ending: &mut watch::Receiver<Option<BreakOff>>) -> BreakOff {
    match ending.wait_for(Option::is_some).await.map(|broken| broken.clone()) {
        Ok(Some(broken)) => broken,
        _ => std::future::pending().await,
    }
}
