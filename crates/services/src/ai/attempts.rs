//! Attempts: a call is tried again, or tried at a fallback, as long as nothing of an answer is there. One hold spans them.
//!
//! Promised: a provider is asked at most `max_attempts` times for a call, once where the caller tries again by itself, and no
//! attempt begins once the time budget is over; what was refused is not tried again, and an account or a key that the
//! provider does not take is not tried again at the same provider. After an attempt that the provider may bill, such as one
//! that sent no first byte in time, nothing is sent again unless the rules say so. An attempt itself lasts as long as its provider's timeouts let it. A future that is dropped
//! drops its hold: whoever calls does so in a task of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use domain::ai::{Admission, AttemptOutcome, BreakerRules, BreakerState, ModelId, Provider};
use domain::users::UserId;
use futures_util::StreamExt;
use ports::ai::{AiProvider, CallHold, CommentSink, ProviderCall, ProviderFault, Reply, ReplyPieces};
use ports::randomness::Randomness;
use thiserror::Error;
use tokio::time::{Instant, sleep};
use tracing::{error, warn};

use super::breakers::{Breakers, may_be_billed, outcome_of};
use super::errors::CallError;

/// A provider, and how often it is asked for one call at most.
#[derive(Clone)]
pub struct Tried {
    pub provider: Arc<dyn AiProvider>,
    pub max_attempts: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct AttemptRules {
    /// The longest pause before the second attempt; it doubles with each one. The pause itself is thrown below it.
    pub first_pause: Duration,
    /// No pause is longer. A provider that asks for a longer one is not asked again.
    pub longest_pause: Duration,
    /// From the first attempt on: no attempt begins later.
    pub time_budget: Duration,
    /// Whether a call is sent again, here or to a fallback, after the provider took it and did not answer in time.
    pub resend_after_timeout: bool,
    pub breaker: BreakerRules,
}

/// Who asks, as far as the attempts depend on it.
#[derive(Clone)]
pub struct AttemptTerms {
    pub user_id: UserId,
    /// Whether whoever asks tries again by itself.
    pub retried_by_caller: bool,
    /// Who hears the comments before the answer.
    pub comments: Arc<dyn CommentSink>,
}

/// A call that is answered.
pub struct Sent {
    pub reply: Reply,
    /// The place of the call that is answered among those that were given.
    pub place: usize,
    /// When that call was sent.
    pub at: Instant,
    pub unanswered: Unanswered,
}

/// Attempts that came to nothing and may be billed by their provider all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unanswered {
    pub attempts: u64,
    /// How long the provider was at work, in whole seconds, all of them together.
    pub seconds: u64,
}

impl Unanswered {
    /// One more, which was sent at that time.
    pub fn add(&mut self, at: Instant) {
        self.attempts += 1;
        self.seconds = self.seconds.saturating_add(at.elapsed().as_secs());
    }
}

/// A call without an answer.
#[derive(Debug)]
pub struct Unsent {
    pub hold: CallHold,
    pub failure: CallFailure,
    pub unanswered: Unanswered,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallFailure {
    #[error("{provider} failed too often just now with this model and is not called for {} s", .retry_after.as_secs())]
    CircuitOpen { provider: Provider, retry_after: Duration },
    #[error("{provider}: {fault}")]
    Provider { provider: Provider, fault: ProviderFault },
}

impl From<CallFailure> for CallError {
    fn from(failure: CallFailure) -> Self {
        match failure {
            CallFailure::CircuitOpen { provider, retry_after } => Self::CircuitOpen { provider, retry_after },
            CallFailure::Provider { provider, fault } => Self::Provider { provider, fault },
        }
    }
}

/// What the attempts did so far, for the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttemptStatistics {
    /// Calls whose first answer came from a fallback.
    pub fallbacks: u64,
    /// In the order of `Provider::ALL`.
    pub providers: Vec<ProviderStatistics>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProviderStatistics {
    pub provider: Provider,
    pub attempts: u64,
    /// Attempts at a call that this provider had failed before.
    pub retries: u64,
    /// Attempts that failed by the provider's fault, answers that broke off later included.
    pub failures: u64,
    /// Calls that were not made, since the breaker was open.
    pub held_back: u64,
    /// How many of its models are left alone.
    pub resting_models: u64,
}

#[derive(Default)]
struct Counted {
    attempts: AtomicU64,
    retries: AtomicU64,
    failures: AtomicU64,
    held_back: AtomicU64,
}

/// What outlives an attempt: an answer that breaks off counts too.
struct Watch {
    breakers: Breakers,
    counted: HashMap<Provider, Counted>,
}

pub struct Attempts {
    providers: HashMap<Provider, Tried>,
    rules: AttemptRules,
    randomness: Arc<dyn Randomness>,
    watch: Arc<Watch>,
    fallbacks: AtomicU64,
}

impl Attempts {
    pub fn new(providers: HashMap<Provider, Tried>, rules: AttemptRules, randomness: Arc<dyn Randomness>) -> Self {
        let counted = Provider::ALL.into_iter().map(|provider| (provider, Counted::default())).collect();
        let watch = Arc::new(Watch { breakers: Breakers::new(rules.breaker), counted });
        Self { providers, rules, randomness, watch, fallbacks: AtomicU64::new(0) }
    }

    /// The first call, or else the next ones in their order. Answers with the reply and the place of its call.
    ///
    /// Of several failures that of the last provider that said something is told; one without a key says nothing new, and
    /// neither does an open breaker.
    pub async fn call(&self, mut hold: CallHold, calls: &[ProviderCall], terms: &AttemptTerms) -> Result<Sent, Unsent> {
        let began = Instant::now();
        let mut unanswered = Unanswered::default();
        let mut told: Option<CallFailure> = None;
        for (place, call) in calls.iter().enumerate() {
            if place > 0 && began.elapsed() >= self.rules.time_budget {
                break;
            }
            let (back, failure) = match self.call_one(hold, call, terms, began, &mut unanswered).await {
                Ok((reply, at)) => {
                    self.fallbacks.fetch_add(u64::from(place > 0), Ordering::Relaxed);
                    return Ok(Sent { reply, place, at, unanswered });
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
        Err(Unsent { hold, failure: told.unwrap_or_else(CallFailure::of_nothing), unanswered })
    }

    /// Whether the built-in provider answers for this one.
    pub fn is_sandbox(&self, provider: Provider) -> bool {
        self.providers.get(&provider).is_some_and(|tried| tried.provider.is_sandbox())
    }

    pub fn statistics(&self) -> AttemptStatistics {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let providers = Provider::ALL.into_iter().filter_map(|provider| {
            let counted = self.watch.counted.get(&provider)?;
            Some(ProviderStatistics {
                provider,
                attempts: read(&counted.attempts),
                retries: read(&counted.retries),
                failures: read(&counted.failures),
                held_back: read(&counted.held_back),
                resting_models: self.watch.breakers.resting(provider),
            })
        });
        AttemptStatistics { fallbacks: read(&self.fallbacks), providers: providers.collect() }
    }

    /// At one provider, as often as it is worth it.
    async fn call_one(
        &self,
        mut hold: CallHold,
        call: &ProviderCall,
        terms: &AttemptTerms,
        began: Instant,
        unanswered: &mut Unanswered,
    ) -> Result<(Reply, Instant), (CallHold, CallFailure)> {
        let provider = call.provider;
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
                    return Ok((Reply { pieces, ..reply }, at));
                }
                Err((back, fault)) => {
                    hold = back;
                    fault
                }
            };
            self.watch.note(&model, admission, &fault);
            failed += 1;
            if may_be_billed(&fault) {
                unanswered.add(at);
            }
            let is_closed = self.watch.breakers.state(call) == BreakerState::Closed;
            match self.pause(&fault, failed, max_attempts, began).filter(|_| is_closed) {
                Some(pause) => {
                    told = Some(fault);
                    sleep(pause).await;
                }
                None => return Err((hold, CallFailure::Provider { provider, fault })),
            }
        }
    }

    /// How long to wait before this provider is asked again, after so many failures. `None`: it is not.
    fn pause(&self, fault: &ProviderFault, failed: u32, max_attempts: u32, began: Instant) -> Option<Duration> {
        let is_final = may_be_billed(fault) && !self.rules.resend_after_timeout;
        if is_final || !fault.may_be_tried_again() || failed >= max_attempts {
            return None;
        }
        let doubled = self.rules.first_pause.saturating_mul(2_u32.saturating_pow(failed - 1));
        let ceiling = u64::try_from(doubled.min(self.rules.longest_pause).as_millis()).unwrap_or(u64::MAX);
        // Thrown over the whole length: those who failed together do not come back together.
        let thrown = Duration::from_millis(self.randomness.below(ceiling.saturating_add(1)));
        let asked = fault.retry_after().unwrap_or_default();
        if asked > self.rules.longest_pause {
            return None;
        }
        // Never before the provider wants it, and those who were told the same moment a little apart.
        let pause = if asked.is_zero() { thrown } else { asked + thrown.min(asked) };
        (began.elapsed() + pause < self.rules.time_budget).then_some(pause)
    }

    /// The pieces, with an eye on how they end.
    fn watched(&self, model: (Provider, ModelId), admission: Option<Admission>, pieces: ReplyPieces) -> ReplyPieces {
        let watch = Arc::clone(&self.watch);
        Box::pin(pieces.inspect(move |piece| {
            if let Err(fault) = piece {
                watch.note(&model, admission, fault);
            }
        }))
    }
}

impl Watch {
    fn count(&self, provider: Provider, which: impl Fn(&Counted) -> &AtomicU64) {
        if let Some(counted) = self.counted.get(&provider) {
            which(counted).fetch_add(1, Ordering::Relaxed);
        }
    }

    fn note(&self, of: &(Provider, ModelId), admission: Option<Admission>, fault: &ProviderFault) {
        let ((provider, model), outcome) = (of, outcome_of(fault));
        let provider = *provider;
        if outcome == AttemptOutcome::Failed {
            self.count(provider, |counted| &counted.failures);
        }
        let (status, code) = fault.refusal().map_or((0, None), |refusal| (refusal.status, refusal.code.as_deref()));
        match fault {
            ProviderFault::NoKey { .. } | ProviderFault::Refused(_) => {}
            // Nobody but the operator can end these.
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
    /// Whether no other provider can do better. A fallback that lacks its key is passed over.
    const fn ends(&self, is_fallback: bool) -> bool {
        match self {
            Self::CircuitOpen { .. } => false,
            Self::Provider { fault: ProviderFault::NoKey { .. }, .. } => !is_fallback,
            Self::Provider { fault, .. } => !fault.may_pass(),
        }
    }

    /// What a provider said goes before the silence of a breaker, and that before a key that lacks. Of two breakers the one
    /// that closes first is told.
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

    /// The start gives every provider something that answers for it.
    fn unknown(provider: Provider) -> Self {
        let fault = ProviderFault::Unreachable("nothing answers for this provider".to_owned());
        Self::Provider { provider, fault }
    }

    fn of_nothing() -> Self {
        let fault = ProviderFault::Broken("no call was given".to_owned());
        Self::Provider { provider: Provider::OpenAi, fault }
    }
}

#[cfg(test)]
mod tests;
