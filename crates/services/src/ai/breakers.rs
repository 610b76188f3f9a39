//! Breakers: one for each provider, shared by all calls of the process. A lock is held for a comparison, never over a wait.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::ai::{Admission, AttemptOutcome, Breaker, BreakerRules, BreakerState, Provider};
use ports::ai::ProviderFault;
use tokio::time::Instant;

pub(super) struct Breakers {
    since: Instant,
    all: HashMap<Provider, Mutex<Breaker>>,
}

impl Breakers {
    pub(super) fn new(rules: BreakerRules) -> Self {
        let all = Provider::ALL.into_iter().map(|provider| (provider, Mutex::new(Breaker::new(rules)))).collect();
        Self { since: Instant::now(), all }
    }

    pub(super) fn admit(&self, provider: Provider) -> Result<Option<Admission>, Duration> {
        self.of(provider).map(|mut breaker| breaker.admit(self.since.elapsed())).transpose()
    }

    /// Says whether that opened it.
    pub(super) fn note(&self, provider: Provider, admission: Option<Admission>, outcome: AttemptOutcome) -> bool {
        let (Some(mut breaker), Some(admission)) = (self.of(provider), admission) else { return false };
        breaker.note(admission, outcome, self.since.elapsed())
    }

    pub(super) fn state(&self, provider: Provider) -> BreakerState {
        self.of(provider).map_or(BreakerState::Closed, |breaker| breaker.state(self.since.elapsed()))
    }

    fn of(&self, provider: Provider) -> Option<MutexGuard<'_, Breaker>> {
        // Nothing panics under the lock, and a breaker is whole after every step.
        self.all.get(&provider).map(|breaker| breaker.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A provider that says no is there: only what it owed and did not do is a failure.
pub(super) const fn outcome_of(fault: &ProviderFault) -> AttemptOutcome {
    match fault {
        ProviderFault::NoKey { .. }
        | ProviderFault::Refused(_)
        | ProviderFault::KeyRefused(_)
        | ProviderFault::SpendLimit(_)
        | ProviderFault::TooFast { .. } => AttemptOutcome::SaidNo,
        ProviderFault::Failed { .. }
        | ProviderFault::Unreachable(_)
        | ProviderFault::TimedOut(_)
        | ProviderFault::Broken(_) => AttemptOutcome::Failed,
    }
}
