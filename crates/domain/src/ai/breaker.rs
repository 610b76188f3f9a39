//! A breaker: a model that fails at its provider is left alone for a while, and then tried with one call at a time.
//!
//! It opens after so many failures in a row, or when in a minute at least half of the callers failed with at least half of
//! their calls, and there were calls enough to tell. It never opens on the failures of fewer than `callers` callers, and of
//! one caller only a share counts, so that nobody rests a model for all. While it is open nobody calls. After that one call
//! at a time is a trial: if it is answered, everybody calls again. A trial that fails keeps its own caller waiting; only
//! when the trials of `callers` callers failed it is open again for all. Time is told as what has passed since any moment
//! that does not move.

use std::collections::HashMap;
use std::time::Duration;

use crate::users::UserId;

/// The minute in which failures are compared with answers is counted in two halves, of which the older one is forgotten.
const HALF: Duration = Duration::from_secs(30);

/// So many times the failures in a row are calls enough to compare.
const ENOUGH: u32 = 4;

/// How many callers are told apart in half a minute; whoever comes beyond them does not count.
const CALLERS_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerRules {
    /// So many failures in a row open it; at least 1.
    pub failures: u32,
    /// So many callers must have failed; at least 1.
    pub callers: u32,
    pub open_for: Duration,
}

impl BreakerRules {
    /// How many failures in a row of one caller count.
    fn share(self) -> u32 {
        self.failures.div_ceil(self.callers.max(1)).max(1)
    }
}

/// What became of a call, as far as it tells whether the provider is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    Answered,
    /// It said no: too fast, not so, not with this key; or we did not understand it. It is there, and that is all it tells.
    SaidNo,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    Open,
    /// A trial is under way.
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

/// Leave for one call of a caller. What became of it counts only while the breaker stands as it stood then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    era: u64,
    caller: UserId,
}

#[derive(Clone, Debug)]
pub struct Breaker {
    rules: BreakerRules,
    phase: Phase,
    /// Rises whenever it opens: calls from before say nothing any more.
    era: u64,
    /// How many failures in a row each caller has.
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
        /// Until when a trial is under way. One that nobody hears of again makes room for another one.
        trial_until: Option<Duration>,
        /// Whose trials failed, and until when they wait.
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

    /// Leave to call now, or how long it takes until somebody gets it.
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

    /// Notes what became of a call. Says whether that opened it.
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

    /// Whether at least half of the callers failed with half of their calls: each counts once, however much it calls.
    fn fails(&self, failures: u32, callers: u32) -> bool {
        let enough = failures.saturating_mul(ENOUGH);
        // Of the calls that are enough to tell, one caller makes a share at most.
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
