//! The service of AI calls: resolves the model, reserves the most that the call can use, sends it, and settles what it
//! used.
//!
//! Promises: nothing is sent that is not reserved, and a reservation ends once, by the call itself or, where its
//! process is gone, by the sweep. The call runs in a task of its own, so a caller that hangs up does not cut short what
//! is paid for.
//!
//! Costs: two commands of the group commit, one before and one after the call; a call that lasts longer than a moment
//! marks its reservation twice, and every third of the reservation's time after that. The prices and the catalogue are
//! cached.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::ai::{ModelId, ProviderId, ProviderProfile, ProviderProfiles};
use domain::entitlements::{Decision, Reason};
use domain::features::FeatureId;
use domain::identity::UsageSubject;
use domain::prices::{ModelPurpose, NanoUsd, PriceList};
use domain::usage::{CallTerms, HoldId};
use ports::ai::{CallObserver, ProviderCall, TokenCounter};
use ports::clock::Clock;
use ports::store::Store;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::answers::{BreakOff, StartedCall};
use super::asker::{Asker, PassedComments};
use super::attempts::{AttemptStatistics, CallAttempts};
use super::call_task::CallTask;
use super::calls::{Call, ResolvedModel};
use super::errors::CallError;
use super::estimates::CallEstimate;
use super::fallbacks::provider_call;
use super::registry::Registry;
use crate::ai_usage::AiUsageService;
use crate::chat::ChatService;
use crate::entitlements::EntitlementService;
use crate::postponed::PostponedItems;
use crate::prices::{OfferedModel, PriceService, PricedModel};
use crate::tokens::TokenService;
use crate::usage::UsageService;
use crate::usage::call_commands::{CallGrant, ReserveCallCommand};

/// How many similar names the error for an unknown model lists.
const NEAR_NAMES: usize = 3;

/// How many comments are buffered before the answer; more are dropped.
const COMMENTS_AHEAD: usize = 64;

/// How many pieces are buffered for a slow reader before the provider is no longer read.
const PIECES_AHEAD: usize = 32;

/// How a stream is kept alive while nothing has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPace {
    /// How long the head waits for the answer to begin, so that what fails until then has a status of its own.
    pub head_wait: Duration,
    /// The length of a silence after which a ping is sent.
    pub ping_every: Duration,
}

#[derive(Clone, Debug)]
pub struct AiCallSettings {
    /// How long a reservation lasts without a mark of its call. A process that is gone is noticed after it.
    pub hold_ttl: TimeDelta,
    /// What is reserved at first for a streamed answer without a bound.
    pub assumed_output_tokens: u64,
    /// Whether every call may be lowered to what can be paid, though it does not ask for it.
    pub may_lower: bool,
    /// Whether all of a stream's bound is reserved before the call.
    pub strict_holds: bool,
    /// How long an answer without a reader is drained before the call is cancelled.
    pub drain: Duration,
    pub stream_pace: StreamPace,
    /// How many messages of a session are sent along as context, at most.
    pub context_messages: u64,
    /// The model of our own route where the request names none.
    pub default_model: String,
    /// By the name of a model: its fallbacks.
    pub fallbacks: HashMap<String, Vec<String>>,
}

/// The most that a call would use and cost, without making it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallQuote {
    pub target: ResolvedModel,
    pub input_tokens: u64,
    pub max_output_tokens: u64,
    /// `None` for a model without a price, where no limit needs one.
    pub max_cost: Option<NanoUsd>,
    /// What would be reserved from the balance; 0 while the plan's limit is not reached.
    pub tokens: i64,
    pub tokens_available: i64,
    pub decision: Decision,
}

/// The dependencies of the service.
pub struct AiParts {
    pub store: Arc<dyn Store>,
    pub prices: Arc<PriceService>,
    pub usage: Arc<UsageService>,
    pub entitlements: Arc<EntitlementService>,
    pub tokens: Arc<TokenService>,
    /// The stored messages, and the usage of earlier calls.
    pub history: Arc<ChatService>,
    pub statistics: Arc<AiUsageService>,
    pub attempts: Arc<CallAttempts>,
    pub counter: Arc<dyn TokenCounter>,
    pub observer: Arc<dyn CallObserver>,
    pub clock: Arc<dyn Clock>,
    pub settings: AiCallSettings,
}

pub struct AiService {
    pub(super) parts: AiParts,
    pub(super) registry: Registry,
    /// Calls that a sweep could not settle.
    pub(super) postponed: PostponedItems<HoldId>,
}

/// A reserved call, and all that its task needs.
pub(super) struct ReservedCall {
    pub bounds: CallEstimate,
    pub grant: CallGrant,
    pub calls: Vec<ProviderCall>,
    pub prices: Arc<PriceList>,
}

impl AiService {
    pub fn new(parts: AiParts) -> Self {
        Self { parts, registry: Registry::default(), postponed: PostponedItems::default() }
    }

    /// About how many model tokens a text has.
    pub fn count(&self, text: &str) -> u64 {
        self.parts.counter.count(text)
    }

    /// The configured providers.
    pub fn providers(&self) -> &ProviderProfiles {
        self.parts.prices.providers()
    }

    /// The attempts at the providers so far.
    pub fn attempts(&self) -> AttemptStatistics {
        self.parts.attempts.statistics()
    }

    /// Now, by the clock of the service.
    pub fn now(&self) -> DateTime<Utc> {
        self.parts.clock.now()
    }

    /// The models that can be called, with their prices.
    pub async fn models(&self, provider: Option<ProviderId>) -> Result<Vec<PricedModel>, CallError> {
        Ok(self.parts.prices.models(provider).await?)
    }

    /// The model of this name, which may begin with its provider's (`claude/..`).
    pub async fn target(
        &self,
        name: &str,
        provider: Option<ProviderId>,
        purpose: ModelPurpose,
    ) -> Result<ResolvedModel, CallError> {
        let (named, bare) = match name.split_once('/') {
            Some((first, rest)) => match first.parse().ok().filter(|named| self.providers().get(*named).is_some()) {
                Some(named) => (Some(named), rest),
                None => (None, name),
            },
            None => (None, name),
        };
        let provider = provider.or(named);
        let found = match ModelId::parse(bare) {
            Ok(model) => self.parts.prices.find(provider, &model).await?.map(|known| (model, known)),
            Err(_) => None,
        };
        let Some((model, known)) = found else {
            let near = near_names(bare, &self.parts.prices.models(provider).await?);
            return Err(CallError::UnknownModel { model: name.to_owned(), near });
        };
        if known.purpose != purpose {
            return Err(CallError::WrongPurpose(name.to_owned()));
        }
        let OfferedModel { provider, max_input_tokens, max_output_tokens, .. } = known;
        let is_sandbox = self.parts.attempts.is_sandbox(provider.id);
        Ok(ResolvedModel { provider, model, max_input_tokens, max_output_tokens, is_sandbox })
    }

    /// Reserves the most that the call can use and sends it; settles once it is over, even if the caller is gone.
    pub async fn start(self: &Arc<Self>, call: Call) -> Result<StartedCall, CallError> {
        let began = Instant::now();
        let granted = self.hold(&call).await.inspect_err(|error| {
            self.parts.observer.refused(call.target.provider.id, &call.target.model, error.word());
        })?;
        let (pieces, read) = mpsc::channel(PIECES_AHEAD);
        let (head, answering) = oneshot::channel();
        let (passed, comments) = mpsc::channel(COMMENTS_AHEAD);
        let (task, hold) = CallTask::new(Arc::clone(self), call, granted, began);
        let expected = task.expected_head();
        tokio::spawn(task.run(hold, Asker { head, comments: Arc::new(PassedComments(passed)), pieces }));
        Ok(StartedCall { expected, head: answering, comments, pieces: read })
    }

    /// When the head of a stream is sent at the latest, and how long a stream is silent at most.
    pub const fn stream_pace(&self) -> StreamPace {
        self.parts.settings.stream_pace
    }

    /// The same path without the call: nothing is reserved.
    pub async fn quote(&self, call: &Call) -> Result<CallQuote, CallError> {
        let calls = self.calls(call).await?;
        let bounds = self.bounds(call, &calls).await?;
        let (prices, now) = (self.parts.prices.current().await?, self.parts.clock.now());
        let max_cost = self.max_cost(call, &bounds, &calls, &prices, now).await?;
        let user_id = call.asking.user_id;
        let decision =
            self.parts.entitlements.check(UsageSubject::Oneself(user_id), &FeatureId::ai_requests(), 1).await?;
        let balance = self.parts.tokens.balance(user_id).await?;
        let lies_on_tokens = matches!(decision.reason, Reason::Ok | Reason::InsufficientTokens);
        let beyond = decision.remaining == Some(0) && lies_on_tokens;
        Ok(CallQuote {
            target: call.target.clone(),
            input_tokens: bounds.input,
            max_output_tokens: bounds.output,
            max_cost,
            tokens: if beyond { bounds.tokens() } else { 0 },
            tokens_available: balance.available(),
            decision,
        })
    }

    /// Whether the call may be reserved below its bound: a stream, unless its caller or the settings demand the whole.
    pub(super) const fn is_elastic(&self, call: &Call) -> bool {
        call.streamed && !call.output.is_strict && !self.parts.settings.strict_holds
    }

    pub(super) async fn bounds(&self, call: &Call, calls: &[ProviderCall]) -> Result<CallEstimate, CallError> {
        let assumed = self.parts.settings.assumed_output_tokens;
        let bounds = CallEstimate::of(call, assumed, self.is_elastic(call), models(calls));
        let least = call.input.least();
        if let Some(limit) = call.target.max_input_tokens.filter(|limit| least > *limit) {
            return Err(CallError::InputTooLong { tokens: bounds.likely_input, limit });
        }
        Ok(bounds.within(self.window(call, calls).await?, call.input.is_unseen))
    }

    /// The call and its fallbacks.
    pub(super) async fn calls(&self, call: &Call) -> Result<Vec<ProviderCall>, CallError> {
        let mut calls = vec![provider_call(call, &call.target, call.content.clone())];
        calls.extend(self.fallbacks(call).await);
        Ok(calls)
    }

    /// The most that it costs. `None` where a model has no price, and neither the user nor the key has a limit that
    /// needs one.
    pub(super) async fn max_cost(
        &self,
        call: &Call,
        bounds: &CallEstimate,
        calls: &[ProviderCall],
        prices: &PriceList,
        now: DateTime<Utc>,
    ) -> Result<Option<NanoUsd>, CallError> {
        if let Ok(cost) = bounds.cost(call, models(calls), prices, now) {
            return Ok(Some(cost));
        }
        let user = UsageSubject::Oneself(call.asking.user_id);
        let decision = self.parts.entitlements.check(user, &FeatureId::ai_requests(), 1).await?;
        if decision.limit.is_some() || call.asking.budgets.limit_costs() {
            return Err(CallError::Unpriced(call.target.model.to_string()));
        }
        Ok(None)
    }

    /// The command that reserves what the call can use.
    pub(super) fn reserve_command(
        &self,
        call: &Call,
        bounds: &CallEstimate,
        cost: Option<NanoUsd>,
        now: DateTime<Utc>,
    ) -> ReserveCallCommand {
        let terms = CallTerms {
            provider: call.target.provider.id,
            model: call.target.model.clone(),
            is_sandbox: call.target.is_sandbox,
            input_tokens: bounds.likely_input,
            max_output_tokens: bounds.output,
            delivered_tokens: 0,
            max_cost_nano_usd: cost.map(|cost| cost.0),
            began_at: now,
            session_id: call.keeping.as_ref().map(|keeping| keeping.session_id.0),
            on_key: None,
            key_lineages: Vec::new(),
        };
        ReserveCallCommand {
            user_id: call.asking.user_id,
            api_key_id: call.asking.api_key_id.map(|key| key.0),
            reservation_id: call.hold_id,
            ttl: self.parts.settings.hold_ttl,
            terms,
            tokens: bounds.tokens(),
            budgets: call.asking.budgets.clone(),
        }
    }

    /// For shutdown: lets running calls go on for `grace`, then breaks them off and waits until they are settled, at
    /// most `patience`.
    pub async fn stop(&self, grace: Duration, patience: Duration) {
        if self.ended_within(grace).await {
            return;
        }
        self.registry.end(|_| Some(BreakOff::Stopping));
        if !self.ended_within(patience).await {
            tracing::warn!(calls = self.registry.len(), "calls were still running at the stop; the sweep settles them");
        }
    }

    async fn ended_within(&self, time: Duration) -> bool {
        let ended = async {
            while self.registry.len() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(time, ended).await.is_ok()
    }
}

pub(super) fn models(calls: &[ProviderCall]) -> impl Iterator<Item = (ProviderProfile, &ModelId)> {
    calls.iter().map(|call| (call.provider, &call.model))
}

fn near_names(name: &str, models: &[PricedModel]) -> Vec<String> {
    let mut near: Vec<(usize, &str)> =
        models.iter().map(|known| known.model.id.as_str()).map(|id| (strsim::levenshtein(name, id), id)).collect();
    near.sort_unstable();
    let close = |(distance, _): &(usize, &str)| *distance <= name.len() / 2;
    near.into_iter().filter(close).take(NEAR_NAMES).map(|(_, id)| id.to_owned()).collect()
}
