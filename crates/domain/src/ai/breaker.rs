//! A breaker: a provider that fails is left alone for a while, and then tried with one call.
//!
//! It opens after so many failures in a row, or when at least half of the calls of a minute failed and there were enough
//! of them to tell. While it is open nobody calls. After that one call is a trial: if it is answered, everybody calls
//! again. Time is told as what has passed since any moment that does not move.

use std::time::Duration;

/// The minute in which failures are compared with answers is counted in two halves, of which the older one is forgotten.
const HALF: Duration = Duration::from_secs(30);

/// So many times the failures in a row are calls enough to compare.
const ENOUGH: u32 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerRules {
    /// So many failures in a row open it; at least 1.
    pub failures: u32,
    pub open_for: Duration,
}

/// What became of a call, as far as it tells whether the provider is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    Answered,
    /// It said no: too fast, not so, not with this key. It is there, and that is all it tells.
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

/// Leave for one call. What became of it counts only while the breaker stands as it stood then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    era: u64,
}

#[derive(Clone, Debug)]
pub struct Breaker {
    rules: BreakerRules,
    phase: Phase,
    /// Rises whenever it opens: calls from before say nothing any more.
    era: u64,
    in_a_row: u32,
    window: Window,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    Open {
        until: Duration,
    },
    /// A trial that nobody hears of again makes room for another one.
    Trying {
        until: Duration,
    },
}

#[derive(Clone, Copy, Debug, Default)]
struct Half {
    calls: u32,
    failed: u32,
}

#[derive(Clone, Debug, Default)]
struct Window {
    began: Duration,
    now: Half,
    before: Half,
}

impl Breaker {
    pub fn new(rules: BreakerRules) -> Self {
        Self { rules, phase: Phase::Closed, era: 0, in_a_row: 0, window: Window::default() }
    }

    /// Leave to call now, or how long it takes until somebody gets it.
    pub fn admit(&mut self, now: Duration) -> Result<Admission, Duration> {
        match self.phase {
            Phase::Closed => {}
            Phase::Open { until } | Phase::Trying { until } if now < until => return Err(until.saturating_sub(now)),
            Phase::Open { .. } | Phase::Trying { .. } => {
                self.phase = Phase::Trying { until: now.saturating_add(self.rules.open_for) };
            }
        }
        Ok(Admission { era: self.era })
    }

    /// Notes what became of a call. Says whether that opened it.
    pub fn note(&mut self, admission: Admission, outcome: AttemptOutcome, now: Duration) -> bool {
        if admission.era != self.era {
            return false;
        }
        match (self.phase, outcome) {
            (Phase::Closed, AttemptOutcome::SaidNo) | (Phase::Open { .. }, _) => false,
            (Phase::Closed, AttemptOutcome::Answered) => {
                self.in_a_row = 0;
                self.window.count(now, false);
                false
            }
            (Phase::Closed, AttemptOutcome::Failed) => {
                self.in_a_row = self.in_a_row.saturating_add(1);
                self.window.count(now, true);
                let opens = self.in_a_row >= self.rules.failures || self.window.fails(self.rules.failures);
                if opens {
                    self.open(now);
                }
                opens
            }
            (Phase::Trying { .. }, AttemptOutcome::Failed) => {
                self.open(now);
                true
            }
            (Phase::Trying { .. }, AttemptOutcome::Answered | AttemptOutcome::SaidNo) => {
                self.phase = Phase::Closed;
                (self.in_a_row, self.window) = (0, Window::default());
                false
            }
        }
    }

    pub fn state(&self, now: Duration) -> BreakerState {
        match self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Trying { until } if now < until => BreakerState::Trying,
            Phase::Open { .. } | Phase::Trying { .. } => BreakerState::Open,
        }
    }

    fn open(&mut self, now: Duration) {
        self.phase = Phase::Open { until: now.saturating_add(self.rules.open_for) };
        self.era += 1;
    }
}

impl Window {
    fn count(&mut self, now: Duration, failed: bool) {
        let passed = now.saturating_sub(self.began);
        if passed >= HALF {
            self.before = if passed < HALF * 2 { self.now } else { Half::default() };
            (self.now, self.began) = (Half::default(), now);
        }
        self.now.calls = self.now.calls.saturating_add(1);
        self.now.failed = self.now.failed.saturating_add(u32::from(failed));
    }

    fn fails(&self, failures: u32) -> bool {
        let calls = self.now.calls.saturating_add(self.before.calls);
        let failed = self.now.failed.saturating_add(self.before.failed);
        calls >= failures.saturating_mul(ENOUGH) && failed.saturating_mul(2) >= calls
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: BreakerRules = BreakerRules { failures: 3, open_for: Duration::from_secs(30) };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Admitted and noted in the same second.
    fn call(breaker: &mut Breaker, outcome: AttemptOutcome, seconds: u64) -> bool {
        let admission = breaker.admit(at(seconds)).unwrap();
        breaker.note(admission, outcome, at(seconds))
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::new(RULES);
        assert!(!call(&mut breaker, AttemptOutcome::Failed, 0));
        assert!(!call(&mut breaker, AttemptOutcome::Failed, 0));
        assert!(call(&mut breaker, AttemptOutcome::Failed, 0), "the third one opens it");
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it() {
        let mut breaker = opened();
        assert_eq!(breaker.admit(at(10)), Err(at(20)));
        assert_eq!(breaker.state(at(10)), BreakerState::Open);
        let mut breaker = Breaker::new(RULES);
        for _ in 0..2 {
            call(&mut breaker, AttemptOutcome::Failed, 0);
            call(&mut breaker, AttemptOutcome::Failed, 0);
            call(&mut breaker, AttemptOutcome::SaidNo, 0);
            call(&mut breaker, AttemptOutcome::Answered, 0);
        }
        assert_eq!(breaker.state(at(0)), BreakerState::Closed, "an answer between them ends the row");
    }

    #[test]
    fn what_says_no_neither_fails_nor_answers() {
        let mut breaker = Breaker::new(RULES);
        for _ in 0..100 {
            assert!(!call(&mut breaker, AttemptOutcome::SaidNo, 0));
        }
        call(&mut breaker, AttemptOutcome::Failed, 0);
        call(&mut breaker, AttemptOutcome::Failed, 0);
        call(&mut breaker, AttemptOutcome::SaidNo, 0);
        assert!(call(&mut breaker, AttemptOutcome::Failed, 0));
    }

    #[test]
    fn half_of_the_calls_of_a_minute_open_it() {
        let mut breaker = Breaker::new(RULES);
        let outcomes = [AttemptOutcome::Answered, AttemptOutcome::Failed];
        let opens: Vec<bool> = (0..12).map(|number| call(&mut breaker, outcomes[number % 2], 40)).collect();
        assert_eq!(opens.iter().position(|opens| *opens), Some(11), "with the twelfth call there are enough");
        let mut breaker = Breaker::new(RULES);
        for number in 0..12 {
            assert!(!call(&mut breaker, outcomes[number % 2], u64::try_from(number).unwrap() * 25), "too long ago");
        }
    }

    #[test]
    fn one_call_is_the_trial() {
        let mut breaker = opened();
        let trial = breaker.admit(at(30)).unwrap();
        assert_eq!((breaker.admit(at(31)), breaker.state(at(31))), (Err(at(29)), BreakerState::Trying));
        assert!(!breaker.note(trial, AttemptOutcome::Answered, at(32)));
        assert!(breaker.admit(at(32)).is_ok() && breaker.admit(at(32)).is_ok());
        assert_eq!(breaker.state(at(32)), BreakerState::Closed);

        let mut breaker = opened();
        let trial = breaker.admit(at(30)).unwrap();
        assert!(breaker.note(trial, AttemptOutcome::Failed, at(35)));
        assert_eq!(breaker.admit(at(36)), Err(at(29)));

        let mut breaker = opened();
        let trial = breaker.admit(at(30)).unwrap();
        breaker.note(trial, AttemptOutcome::SaidNo, at(31));
        assert_eq!(breaker.state(at(31)), BreakerState::Closed, "who says no is there");
    }

    #[test]
    fn a_trial_that_nobody_hears_of_makes_room_and_still_counts() {
        let mut breaker = opened();
        let slow = breaker.admit(at(30)).unwrap();
        assert_eq!(breaker.state(at(60)), BreakerState::Open);
        breaker.admit(at(60)).unwrap();
        assert!(!breaker.note(slow, AttemptOutcome::Answered, at(70)));
        assert_eq!(breaker.state(at(70)), BreakerState::Closed);
    }

    #[test]
    fn what_was_called_before_it_opened_says_nothing() {
        let mut breaker = Breaker::new(RULES);
        let early = breaker.admit(at(0)).unwrap();
        for _ in 0..3 {
            call(&mut breaker, AttemptOutcome::Failed, 0);
        }
        breaker.note(early, AttemptOutcome::Answered, at(1));
        assert_eq!(breaker.state(at(1)), BreakerState::Open);
    }

    proptest! {
        /// Whatever happens: while it is not closed, one call in each pause at most, and a wait that ends.
        #[test]
        fn an_open_one_lets_one_call_through_and_always_lets_one_through(
            steps in prop::collection::vec((0..40_u64, 0..4_usize), 1..200), failures in 1..5_u32,
        ) {
            let mut breaker = Breaker::new(BreakerRules { failures, open_for: at(30) });
            let mut now = 0;
            let mut pending: Vec<Admission> = Vec::new();
            let mut last_trial: Option<u64> = None;
            for (passed, step) in steps {
                now += passed;
                let was_closed = breaker.state(at(now)) == BreakerState::Closed;
                if step == 3 {
                    match breaker.admit(at(now)) {
                        Ok(admission) => {
                            if !was_closed {
                                prop_assert!(last_trial.is_none_or(|trial| now - trial >= 30));
                                last_trial = Some(now);
                            }
                            pending.push(admission);
                        }
                        Err(wait) => {
                            prop_assert!(!was_closed && wait > Duration::ZERO && wait <= at(30));
                            let mut later = breaker.clone();
                            prop_assert!(later.admit(at(now) + wait).is_ok());
                        }
                    }
                } else if let Some(admission) = pending.pop() {
                    let outcome = [AttemptOutcome::Answered, AttemptOutcome::SaidNo, AttemptOutcome::Failed][step];
                    let opens = breaker.note(admission, outcome, at(now));
                    prop_assert_eq!(opens && outcome != AttemptOutcome::Failed, false);
                    if opens {
                        prop_assert_eq!(breaker.state(at(now)), BreakerState::Open);
                    }
                    if breaker.state(at(now)) == BreakerState::Closed {
                        last_trial = None;
                    }
                }
            }
        }
    }
}
