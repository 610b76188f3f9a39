//! Breakers: one for each model of each provider, shared by all calls of the process. The lock is held for a
//! comparison, never across an await. Each provider has one upstream key, so a breaker needs no key of its own.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::ai::{Admission, AttemptOutcome, Breaker, BreakerRules, BreakerState, ModelId, ProviderId};
use domain::users::UserId;
use ports::ai::{ProviderCall, ProviderFault, ProviderWait};
use tokio::time::Instant;

/// How many models are watched at once. Beyond it, closed breakers are dropped.
const WATCHED_MAX: usize = 4_096;

type Watched = HashMap<(ProviderId, ModelId), Breaker>;

pub(super) struct Breakers {
    since: Instant,
    rules: BreakerRules,
    all: Mutex<Watched>,
}

impl Breakers {
    pub(super) fn new(rules: BreakerRules) -> Self {
        Self { since: Instant::now(), rules, all: Mutex::default() }
    }

    /// `None`, so that nothing is noted, where too many breakers are open to watch one more model.
    pub(super) fn admit(&self, call: &ProviderCall, caller: UserId) -> Result<Option<Admission>, Duration> {
        let (now, mut all) = (self.since.elapsed(), self.all());
        let place = (call.provider.id, call.model.clone());
        if all.len() >= WATCHED_MAX && !all.contains_key(&place) {
            all.retain(|_, breaker| breaker.state(now) != BreakerState::Closed);
            if all.len() >= WATCHED_MAX {
                return Ok(None);
            }
        }
        all.entry(place).or_insert_with(|| Breaker::new(self.rules)).admit(caller, now).map(Some)
    }

    /// Returns whether that opened the breaker.
    pub(super) fn note(
        &self,
        model: &(ProviderId, ModelId),
        admission: Option<Admission>,
        outcome: AttemptOutcome,
    ) -> bool {
        let (now, mut all) = (self.since.elapsed(), self.all());
        match (all.get_mut(model), admission) {
            (Some(breaker), Some(admission)) => breaker.note(admission, outcome, now),
            _ => false,
        }
    }

    pub(super) fn state(&self, call: &ProviderCall) -> BreakerState {
        let place = (call.provider.id, call.model.clone());
        let now = self.since.elapsed();
        self.all().get(&place).map_or(BreakerState::Closed, |breaker| breaker.state(now))
    }

    /// How many models of a provider have a breaker that is not closed, including those under trial.
    pub(super) fn resting(&self, provider: ProviderId) -> u64 {
        let (now, all) = (self.since.elapsed(), self.all());
        let of_provider = all.iter().filter(|((of, _), _)| *of == provider);
        of_provider.filter(|(_, breaker)| breaker.state(now) != BreakerState::Closed).count() as u64
    }

    fn all(&self) -> MutexGuard<'_, Watched> {
        // Nothing panics under the lock, and a breaker is consistent after every step.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `Failed` means that the provider did not do what it owed. A provider that refuses is available, and so is one whose
/// answer we cannot parse. A status below 500 is caused by the caller in any case.
pub(super) const fn outcome_of(fault: &ProviderFault) -> AttemptOutcome {
    match fault {
        ProviderFault::NoKey { .. }
        | ProviderFault::Refused(_)
        | ProviderFault::KeyRefused(_)
        | ProviderFault::SpendLimit(_)
        | ProviderFault::TooFast { .. }
        | ProviderFault::NotUnderstood(_) => AttemptOutcome::SaidNo,
        ProviderFault::Failed { refusal, .. } if refusal.status < 500 => AttemptOutcome::SaidNo,
        ProviderFault::Failed { .. }
        | ProviderFault::Unreachable(_)
        | ProviderFault::TimedOut(_)
        | ProviderFault::Broken(_)
        | ProviderFault::LostAnswer(_) => AttemptOutcome::Failed,
    }
}

/// Whether the provider may bill an attempt without an answer: it had the whole call, and was still at work or had
/// answered.
pub(super) const fn may_be_billed(fault: &ProviderFault) -> bool {
    matches!(
        fault,
        ProviderFault::TimedOut(ProviderWait::FirstByte | ProviderWait::Rest) | ProviderFault::LostAnswer(_)
    )
}
