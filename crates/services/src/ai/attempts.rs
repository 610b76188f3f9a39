//! Attempts: a call is retried, or sent to a fallback, as long as no part of an answer has arrived. One reservation
//! spans all attempts.
//!
//! Promises: a provider gets at most `max_attempts` attempts for a call, only one where the caller retries by itself.
//! No attempt begins once the time budget is over. A refused call is not retried. A provider that rejects our account
//! or key gets no second attempt. After an attempt that the provider may bill, such as one that sent no first byte in
//! time, nothing is sent again unless the rules say so. An attempt lasts at most as long as its provider's timeouts.
//! Dropping the future drops the reservation, so the caller runs it in a task of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use domain::ai::{Admission, AttemptOutcome, BreakerRules, BreakerState, ModelId, ProviderId};
use domain::users::UserId;
use futures_util::StreamExt;
use ports::ai::{AiProvider, CallReservation, CommentSink, ProviderCall, ProviderFault, ProviderReply, ReplyPieces};
use ports::randomness::Randomness;
use thiserror::Error;
use tokio::time::{Instant, sleep};
use tracing::{error, warn};

use super::breakers::{Breakers, may_be_billed, outcome_of};
use super::errors::CallError;

/// A connection that breaks after this time is taken to have broken while the provider was at work.
const AT_WORK_AFTER: Duration = Duration::from_secs(1);

/// A provider, and the most attempts at it for one call.
#[derive(Clone)]
pub struct TriedProvider {
    pub provider: Arc<dyn AiProvider>,
    pub max_attempts: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct AttemptRules {
    /// The longest pause before the second attempt; it doubles with each attempt. The actual pause is random up to it.
    pub first_pause: Duration,
    /// The upper bound of every pause. A provider that asks for a longer one gets no further attempt.
    pub longest_pause: Duration,
    /// No attempt begins later than this after the first.
    pub time_budget: Duration,
    /// Whether a call is sent again, here or to a fallback, after the provider took it and did not answer in time.
    pub resend_after_timeout: bool,
    pub breaker: BreakerRules,
}

/// What the attempts need to know about the caller.
#[derive(Clone)]
pub struct AttemptTerms {
    pub user_id: UserId,
    /// Whether the caller retries by itself.
    pub retried_by_caller: bool,
    /// Receives the comments that come before the answer.
    pub comments: Arc<dyn CommentSink>,
}

/// A call that is answered.
pub struct SentCall {
    pub reply: ProviderReply,
    /// The index of the answered call among the given calls.
    pub place: usize,
    /// When that call was sent.
    pub at: Instant,
    pub unanswered: UnansweredAttempts,
}

/// Attempts without an answer that their provider may bill all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnansweredAttempts {
    pub attempts: u64,
    /// How long the provider was at work, in whole seconds, summed over all of them.
    pub seconds: u64,
}

impl UnansweredAttempts {
    /// Adds an attempt that was sent at `at`.
    pub fn add(&mut self, at: Instant) {
        self.attempts += 1;
        self.seconds = self.seconds.saturating_add(at.elapsed().as_secs());
    }
}

/// A call without an answer.
#[derive(Debug)]
pub struct UnsentCall {
    pub hold: CallReservation,
    pub failure: CallFailure,
    pub unanswered: UnansweredAttempts,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallFailure {
    #[error("{provider} failed too often just now with this model and is not called for {} s", .retry_after.as_secs())]
    CircuitOpen { provider: ProviderId, retry_after: Duration },
    #[error("{provider}: {fault}")]
    Provider { provider: ProviderId, fault: ProviderFault },
}

impl From<CallFailure> for CallError {
    fn from(failure: CallFailure) -> Self {
        match failure {
            CallFailure::CircuitOpen { provider, retry_after } => Self::CircuitOpen { provider, retry_after },
            CallFailure::Provider { provider, fault } => Self::Provider { provider, fault },
        }
    }
}

/// The totals of the attempts so far, for the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttemptStatistics {
    /// Calls that a fallback answered.
    pub fallbacks: u64,
    /// In the order of their names, the built-in ones first.
    pub providers: Vec<ProviderStatistics>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProviderStatistics {
    pub provider: ProviderId,
    pub attempts: u64,
    /// Attempts at a call that had failed at this provider before.
    pub retries: u64,
    /// Attempts that failed by the provider's fault, including answers that broke off later.
    pub failures: u64,
    /// Calls that were not made because the breaker was open.
    pub held_back: u64,
    /// How many of its models have a breaker that is not closed.
    pub resting_models: u64,
}

#[derive(Default)]
struct Counted {
    attempts: AtomicU64,
    retries: AtomicU64,
    failures: AtomicU64,
    held_back: AtomicU64,
}

/// State that outlives an attempt: an answer that breaks off later counts too.
struct Watch {
    breakers: Breakers,
    counted: HashMap<ProviderId, Counted>,
}

pub struct CallAttempts {
    providers: HashMap<ProviderId, TriedProvider>,
    rules: AttemptRules,
    randomness: Arc<dyn Randomness>,
    watch: Arc<Watch>,
    fallbacks: AtomicU64,
}

impl CallAttempts {
    pub fn new(
        providers: HashMap<ProviderId, TriedProvider>,
        rules: AttemptRules,
        randomness: Arc<dyn Randomness>,
    ) -> Self {
        let counted = providers.keys().map(|provider| (*provider, Counted::default())).collect();
        let watch = Arc::new(Watch { breakers: Breakers::new(rules.breaker), counted });
        Self { providers, rules, randomness, watch, fallbacks: AtomicU64::new(0) }
    }

    /// Tries the first call, then the others in their order. Returns the reply and the index of its call.
    ///
    /// Of several failures, the last fault of a provider is reported; without one, an open breaker; a missing key comes
    /// last.
    pub async fn call(
        &self,
        mut hold: CallReservation,
        calls: &[ProviderCall],
        terms: &AttemptTerms,
    ) -> Result<SentCall, UnsentCall> {
        let began = Instant::now();
        let mut unanswered = UnansweredAttempts::default();
        let mut told: Option<CallFailure> = None;
        for (place, call) in calls.iter().enumerate() {
            if place > 0 && began.elapsed() >= self.rules.time_budget {
                break;
            }
            let (back, failure) = match self.call_one(hold, call, terms, began, &mut unanswered).await {
                Ok((reply, at)) => {
                    self.fallbacks.fetch_add(u64::from(place > 0), Ordering::Relaxed);
                    return Ok(SentCall { reply, place, at, unanswered });
                }
                Err(failed) => failed,
            };
            hold = back;
            let ends = failure.ends(place > 0) || unanswered.attempts > 0 && !self.rules.resend_after_timeout;
            told = Some(failure.or_earlier(told));
            if ends {
                break;
            }
        }
        Err(UnsentCall { hold, failure: told.unwrap_or_else(CallFailure::of_nothing), unanswered })
    }

    /// Whether the built-in provider answers in place of this one.
    pub fn is_sandbox(&self, provider: ProviderId) -> bool {
        self.providers.get(&provider).is_some_and(|tried| tried.provider.is_sandbox())
    }

    pub fn statistics(&self) -> AttemptStatistics {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut counted: Vec<_> = self.watch.counted.iter().collect();
        counted.sort_by_key(|(provider, _)| **provider);
        let providers = counted.into_iter().map(|(provider, counted)| {
            let provider = *provider;
            ProviderStatistics {
                provider,
                attempts: read(&counted.attempts),
                retries: read(&counted.retries),
                failures: read(&counted.failures),
                held_back: read(&counted.held_back),
                resting_models: self.watch.breakers.resting(provider),
            }
        });
        AttemptStatistics { fallbacks: read(&self.fallbacks), providers: providers.collect() }
    }

    /// Tries one provider, as often as the rules allow.
    async fn call_one(
        &self,
        mut hold: CallReservation,
        call: &ProviderCall,
        terms: &AttemptTerms,
        began: Instant,
        unanswered: &mut UnansweredAttempts,
    ) -> Result<(ProviderReply, Instant), (CallReservation, CallFailure)> {
        let provider = call.provider.id;
        let model = (provider, call.model.clone());
        let Some(tried) = self.providers.get(&provider) else {
            return Err((hold, CallFailure::unknown(provider)));
        };
        let max_attempts = if terms.retried_by_caller { 1 } else { tried.max_attempts };
        let mut failed = 0;
        let mut told: Option<ProviderFault> = None;
        loop {
            let admission = match self.watch.breakers.admit(call, terms.user_id) {
                Ok(admission) => admission,
                Err(retry_after) => {
                    self.watch.count(provider, |counted| &counted.held_back);
                    let open = CallFailure::CircuitOpen { provider, retry_after };
                    return Err((hold, told.map_or(open, |fault| CallFailure::Provider { provider, fault })));
                }
            };
            self.watch.count(provider, |counted| &counted.attempts);
            if failed > 0 {
                self.watch.count(provider, |counted| &counted.retries);
            }
            let at = Instant::now();
            let fault = match tried.provider.send_with_comments(hold, call, Arc::clone(&terms.comments)).await {
                Ok(reply) => {
                    self.watch.breakers.note(&model, admission, AttemptOutcome::Answered);
                    let pieces = self.watched(model, admission, reply.pieces);
                    return Ok((ProviderReply { pieces, ..reply }, at));
                }
                Err((back, fault)) => {
                    hold = back;
                    fault
                }
            };
            self.watch.note(&model, admission, &fault);
            failed += 1;
            let is_billed = may_be_billed(&fault) || broke_at_work(&fault, at);
            if is_billed {
                unanswered.add(at);
            }
            let is_closed = self.watch.breakers.state(call) == BreakerState::Closed;
            match self.pause(&fault, is_billed, failed, max_attempts, began).filter(|_| is_closed) {
                Some(pause) => {
                    told = Some(fault);
                    sleep(pause).await;
                }
                None => return Err((hold, CallFailure::Provider { provider, fault })),
            }
        }
    }

    /// How long to wait before the next attempt at this provider, after `failed` failures. `None`: no further attempt.
    fn pause(
        &self,
        fault: &ProviderFault,
        is_billed: bool,
        failed: u32,
        max_attempts: u32,
        began: Instant,
    ) -> Option<Duration> {
        let is_final = is_billed && !self.rules.resend_after_timeout;
        if is_final || !fault.may_be_tried_again() || failed >= max_attempts {
            return None;
        }
        let doubled = self.rules.first_pause.saturating_mul(2_u32.saturating_pow(failed - 1));
        let ceiling = u64::try_from(doubled.min(self.rules.longest_pause).as_millis()).unwrap_or(u64::MAX);
        // Random over the whole length: calls that failed together do not retry together.
        let thrown = Duration::from_millis(self.randomness.below(ceiling.saturating_add(1)));
        let asked = fault.retry_after().unwrap_or_default();
        if asked > self.rules.longest_pause {
            return None;
        }
        // Never earlier than the provider asked, and spread out for calls that got the same moment.
        let pause = if asked.is_zero() { thrown } else { asked + thrown.min(asked) };
        (began.elapsed() + pause < self.rules.time_budget).then_some(pause)
    }

    /// Passes the pieces on and records a fault among them.
    fn watched(&self, model: (ProviderId, ModelId), admission: Option<Admission>, pieces: ReplyPieces) -> ReplyPieces {
        let watch = Arc::clone(&self.watch);
        Box::pin(pieces.inspect(move |piece| {
            if let Err(fault) = piece {
                watch.note(&model, admission, fault);
            }
        }))
    }
}

/// Whether a connection broke after the provider had been at work on the call. One that breaks at once was a stale one.
fn broke_at_work(fault: &ProviderFault, since: Instant) -> bool {
    matches!(fault, ProviderFault::Broken(_)) && since.elapsed() >= AT_WORK_AFTER
}

impl Watch {
    fn count(&self, provider: ProviderId, which: impl Fn(&Counted) -> &AtomicU64) {
        if let Some(counted) = self.counted.get(&provider) {
            which(counted).fetch_add(1, Ordering::Relaxed);
        }
    }

    fn note(&self, of: &(ProviderId, ModelId), admission: Option<Admission>, fault: &ProviderFault) {
        let ((provider, model), outcome) = (of, outcome_of(fault));
        let provider = *provider;
        if outcome == AttemptOutcome::Failed {
            self.count(provider, |counted| &counted.failures);
        }
        let (status, code) = fault.refusal().map_or((0, None), |refusal| (refusal.status, refusal.code.as_deref()));
        match fault {
            ProviderFault::NoKey { .. } | ProviderFault::Refused(_) => {}
            // Only the operator can end these.
            ProviderFault::KeyRefused(_) | ProviderFault::SpendLimit(_) => {
                error!(%provider, %model, fault = fault.kind(), status, code, "a provider does not serve this account");
            }
            _ => warn!(%provider, %model, fault = fault.kind(), status, code, "an attempt at a provider failed"),
        }
        if self.breakers.note(of, admission, outcome) {
            warn!(%provider, %model, "a model failed too often at its provider and is left alone for a while");
        }
    }
}

impl CallFailure {
    /// Whether no other provider can do better. A fallback without a key is passed over.
    const fn ends(&self, is_fallback: bool) -> bool {
        match self {
            Self::CircuitOpen { .. } => false,
            Self::Provider { fault: ProviderFault::NoKey { .. }, .. } => !is_fallback,
            Self::Provider { fault, .. } => !fault.may_pass(),
        }
    }

    /// A provider's fault takes precedence over an open breaker, and that over a missing key. Of two open breakers, the
    /// one that closes first is reported.
    fn or_earlier(self, earlier: Option<Self>) -> Self {
        let Some(earlier) = earlier else { return self };
        let tells_more = match (&self, &earlier) {
            (Self::CircuitOpen { retry_after: later, .. }, Self::CircuitOpen { retry_after, .. }) => {
                retry_after <= later
            }
            _ => earlier.weight() > self.weight(),
        };
        if tells_more { earlier } else { self }
    }

    const fn weight(&self) -> u8 {
        match self {
            Self::Provider { fault: ProviderFault::NoKey { .. }, .. } => 0,
            Self::CircuitOpen { .. } => 1,
            Self::Provider { .. } => 2,
        }
    }

    /// Not expected: startup registers an implementation for every provider.
    fn unknown(provider: ProviderId) -> Self {
        let fault = ProviderFault::Unreachable("nothing answers for this provider".to_owned());
        Self::Provider { provider, fault }
    }

    fn of_nothing() -> Self {
        let fault = ProviderFault::Broken("no call was given".to_owned());
        Self::Provider { provider: ProviderId::OPENAI, fault }
    }
}

#[cfg(test)]
mod tests;
