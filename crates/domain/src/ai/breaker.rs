//! A circuit breaker: a model that fails at its provider gets no calls for a while, and then one trial call at a time.
//!
//! It opens after `failures` failures in a row, or if within a minute at least half of the callers failed with at least
//! half of their calls and there were enough calls to compare. It never opens on the failures of fewer than `callers`
//! callers, and only a share of one caller's failures counts, so no single caller can block a model for all. While it
//! is open, all calls are refused. After that, one call at a time is a trial: if it is answered, the breaker closes. A
//! failed trial blocks only its own caller; when the trials of `callers` callers have failed, it opens again for all.
//! Times are durations since any fixed instant.

use std::collections::HashMap;
use std::time::Duration;

use crate::users::UserId;

/// The minute in which failures are compared with answers is counted in two halves; the older half is dropped.
const HALF: Duration = Duration::from_secs(30);

/// This many times `failures` is enough calls to compare.
const ENOUGH: u32 = 4;

/// How many callers are counted separately per half minute; further callers are not counted.
const CALLERS_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerRules {
    /// The number of failures in a row that opens it; at least 1.
    pub failures: u32,
    /// The number of callers that must have failed; at least 1.
    pub callers: u32,
    pub open_for: Duration,
}

impl BreakerRules {
    /// How many failures in a row of one caller count.
    fn share(self) -> u32 {
        self.failures.div_ceil(self.callers.max(1)).max(1)
    }
}

/// The outcome of a call, as far as it shows whether the provider works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    Answered,
    /// Reachable, but it refused the call (rate limit, request, API key) or its response was not understood.
    SaidNo,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    Open,
    /// A trial call is in progress.
    Trying,
}

impl BreakerState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::Trying => "trying",
        }
    }
}

/// Permission for one call of a caller. Its outcome counts only until the breaker opens again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    era: u64,
    caller: UserId,
}

#[derive(Clone, Debug)]
pub struct Breaker {
    rules: BreakerRules,
    phase: Phase,
    /// Incremented when it opens: outcomes of earlier calls are ignored.
    era: u64,
    /// The failures in a row of each caller.
    in_a_row: Vec<(UserId, u32)>,
    window: Window,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    Open {
        until: Duration,
    },
    Trying {
        /// When the trial in progress times out. After that, another trial may start even if its outcome is unknown.
        trial_until: Option<Duration>,
        /// The callers whose trials failed, and until when each is refused.
        failed: Vec<(UserId, Duration)>,
    },
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    calls: u32,
    failed: u32,
}

type Tallies = HashMap<UserId, Tally>;

#[derive(Clone, Debug, Default)]
struct Window {
    began: Duration,
    now: Tallies,
    before: Tallies,
}

impl Breaker {
    pub fn new(rules: BreakerRules) -> Self {
        Self { rules, phase: Phase::Closed, era: 0, in_a_row: Vec::new(), window: Window::default() }
    }

    /// Permits a call now, or returns how long until one is permitted.
    pub fn admit(&mut self, caller: UserId, now: Duration) -> Result<Admission, Duration> {
        let trial_until = now.saturating_add(self.rules.open_for);
        match &mut self.phase {
            Phase::Closed => {}
            Phase::Open { until } if now < *until => return Err(until.saturating_sub(now)),
            Phase::Open { .. } => {
                self.phase = Phase::Trying { trial_until: Some(trial_until), failed: Vec::new() };
            }
            Phase::Trying { trial_until: under_way, failed } => {
                let own = failed.iter().find(|(failed, _)| *failed == caller).map(|(_, until)| *until);
                let until = (*under_way).max(own).filter(|until| now < *until);
                if let Some(until) = until {
                    return Err(until.saturating_sub(now));
                }
                *under_way = Some(trial_until);
            }
        }
        Ok(Admission { era: self.era, caller })
    }

    /// Records the outcome of a call. Returns whether that opened the breaker.
    pub fn note(&mut self, admission: Admission, outcome: AttemptOutcome, now: Duration) -> bool {
        if admission.era != self.era {
            return false;
        }
        let caller = admission.caller;
        match (&mut self.phase, outcome) {
            (Phase::Closed, AttemptOutcome::SaidNo) | (Phase::Open { .. }, _) => false,
            (Phase::Closed, AttemptOutcome::Answered) => {
                self.in_a_row.clear();
                self.window.count(caller, now, false);
                false
            }
            (Phase::Closed, AttemptOutcome::Failed) => {
                self.fail_in_a_row(caller);
                self.window.count(caller, now, true);
                let opens = self.has_failed_enough();
                if opens {
                    self.open(now);
                }
                opens
            }
            (Phase::Trying { trial_until, failed }, AttemptOutcome::Failed) => {
                *trial_until = None;
                failed.retain(|(known, _)| *known != caller);
                failed.push((caller, now.saturating_add(self.rules.open_for)));
                let opens = failed.len() >= usize::try_from(self.rules.callers).unwrap_or(usize::MAX);
                if opens {
                    self.open(now);
                }
                opens
            }
            (Phase::Trying { .. }, AttemptOutcome::Answered | AttemptOutcome::SaidNo) => {
                self.phase = Phase::Closed;
                (self.in_a_row, self.window) = (Vec::new(), Window::default());
                false
            }
        }
    }

    pub fn state(&self, now: Duration) -> BreakerState {
        match &self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Trying { trial_until: Some(until), .. } if now < *until => BreakerState::Trying,
            Phase::Open { .. } | Phase::Trying { .. } => BreakerState::Open,
        }
    }

    fn fail_in_a_row(&mut self, caller: UserId) {
        let place = self.in_a_row.iter().position(|(known, _)| *known == caller);
        if let Some((_, failed)) = place.and_then(|place| self.in_a_row.get_mut(place)) {
            *failed = failed.saturating_add(1);
        } else if self.in_a_row.len() < CALLERS_MAX {
            self.in_a_row.push((caller, 1));
        }
    }

    fn has_failed_enough(&self) -> bool {
        let (callers, share) = (usize::try_from(self.rules.callers).unwrap_or(usize::MAX), self.rules.share());
        let in_a_row = self.in_a_row.iter().map(|(_, failed)| *failed.min(&share)).fold(0, u32::saturating_add);
        let by_row = self.in_a_row.len() >= callers && in_a_row >= self.rules.failures;
        by_row || self.window.fails(self.rules.failures, self.rules.callers)
    }

    fn open(&mut self, now: Duration) {
        self.phase = Phase::Open { until: now.saturating_add(self.rules.open_for) };
        (self.in_a_row, self.window) = (Vec::new(), Window::default());
        self.era += 1;
    }
}

impl Window {
    fn count(&mut self, caller: UserId, now: Duration, has_failed: bool) {
        let passed = now.saturating_sub(self.began);
        if passed >= HALF {
            let last = std::mem::take(&mut self.now);
            self.before = if passed < HALF * 2 { last } else { Tallies::default() };
            self.began = now;
        }
        if self.now.len() < CALLERS_MAX || self.now.contains_key(&caller) {
            let tally = self.now.entry(caller).or_default();
            tally.calls = tally.calls.saturating_add(1);
            tally.failed = tally.failed.saturating_add(u32::from(has_failed));
        }
    }

    /// Whether at least half of the callers failed with half of their calls; each counts once, however much it calls.
    fn fails(&self, failures: u32, callers: u32) -> bool {
        let enough = failures.saturating_mul(ENOUGH);
        // Of the calls that are enough to compare, one caller can contribute only a share.
        let share = enough.div_ceil(callers.max(1));
        let (mut calls, mut all, mut failing) = (0_u32, 0_usize, 0_usize);
        let earlier = self.before.iter().filter(|(caller, _)| !self.now.contains_key(*caller));
        for (caller, tally) in self.now.iter().chain(earlier) {
            let before = self.before.get(caller).filter(|_| self.now.contains_key(caller)).copied().unwrap_or_default();
            let tally = Tally {
                calls: tally.calls.saturating_add(before.calls),
                failed: tally.failed.saturating_add(before.failed),
            };
            calls = calls.saturating_add(tally.calls.min(share));
            all += 1;
            failing += usize::from(tally.failed.saturating_mul(2) >= tally.calls);
        }
        let callers = usize::try_from(callers).unwrap_or(usize::MAX);
        calls >= enough && failing >= callers && failing * 2 >= all
    }
}

#[cfg(test)]
mod tests;
