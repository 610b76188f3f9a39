use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const RULES: BreakerRules = BreakerRules { failures: 3, callers: 1, open_for: Duration::from_secs(30) };
/// Several callers must have failed.
const SHARED: BreakerRules = BreakerRules { failures: 5, callers: 2, ..RULES };
const ADA: UserId = UserId(Uuid::from_u128(1));

fn caller(number: u128) -> UserId {
    UserId(Uuid::from_u128(number))
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Admitted and recorded in the same second.
fn call(breaker: &mut Breaker, outcome: AttemptOutcome, seconds: u64) -> bool {
    call_of(breaker, ADA, outcome, seconds)
}

fn call_of(breaker: &mut Breaker, caller: UserId, outcome: AttemptOutcome, seconds: u64) -> bool {
    let admission = breaker.admit(caller, at(seconds)).unwrap();
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
    assert_eq!(breaker.admit(ADA, at(10)), Err(at(20)));
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
    let trial = breaker.admit(ADA, at(30)).unwrap();
    assert_eq!((breaker.admit(ADA, at(31)), breaker.state(at(31))), (Err(at(29)), BreakerState::Trying));
    assert!(!breaker.note(trial, AttemptOutcome::Answered, at(32)));
    assert!(breaker.admit(ADA, at(32)).is_ok() && breaker.admit(ADA, at(32)).is_ok());
    assert_eq!(breaker.state(at(32)), BreakerState::Closed);

    let mut breaker = opened();
    let trial = breaker.admit(ADA, at(30)).unwrap();
    assert!(breaker.note(trial, AttemptOutcome::Failed, at(35)));
    assert_eq!(breaker.admit(ADA, at(36)), Err(at(29)));

    let mut breaker = opened();
    let trial = breaker.admit(ADA, at(30)).unwrap();
    breaker.note(trial, AttemptOutcome::SaidNo, at(31));
    assert_eq!(breaker.state(at(31)), BreakerState::Closed, "who says no is there");
}

#[test]
fn a_trial_that_nobody_hears_of_makes_room_and_still_counts() {
    let mut breaker = opened();
    let slow = breaker.admit(ADA, at(30)).unwrap();
    assert_eq!(breaker.state(at(60)), BreakerState::Open);
    breaker.admit(ADA, at(60)).unwrap();
    assert!(!breaker.note(slow, AttemptOutcome::Answered, at(70)));
    assert_eq!(breaker.state(at(70)), BreakerState::Closed);
}

#[test]
fn what_was_called_before_it_opened_says_nothing() {
    let mut breaker = Breaker::new(RULES);
    let early = breaker.admit(ADA, at(0)).unwrap();
    for _ in 0..3 {
        call(&mut breaker, AttemptOutcome::Failed, 0);
    }
    breaker.note(early, AttemptOutcome::Answered, at(1));
    assert_eq!(breaker.state(at(1)), BreakerState::Open);
}

proptest! {
    /// For any outcomes: while not closed, it admits at most one call per pause, and every wait ends.
    #[test]
    fn an_open_one_lets_one_call_through_and_always_lets_one_through(
        steps in prop::collection::vec((0..40_u64, 0..4_usize), 1..200), failures in 1..5_u32,
    ) {
        let mut breaker = Breaker::new(BreakerRules { failures, ..RULES });
        let mut now = 0;
        let mut pending: Vec<Admission> = Vec::new();
        let mut last_trial: Option<u64> = None;
        for (passed, step) in steps {
            now += passed;
            let was_closed = breaker.state(at(now)) == BreakerState::Closed;
            if step == 3 {
                match breaker.admit(ADA, at(now)) {
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
                        prop_assert!(later.admit(ADA, at(now) + wait).is_ok());
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

#[test]
fn one_caller_rests_nobody() {
    let mut breaker = Breaker::new(SHARED);
    for seconds in 0..500 {
        assert!(!call(&mut breaker, AttemptOutcome::Failed, seconds / 5));
    }
    assert_eq!(breaker.state(at(100)), BreakerState::Closed);
    // Only a share of the first caller's failures counts: others supply the rest.
    assert!(!call_of(&mut breaker, caller(2), AttemptOutcome::Failed, 100));
    assert!(call_of(&mut breaker, caller(3), AttemptOutcome::Failed, 100));
    assert!(breaker.admit(caller(9), at(129)).is_err(), "it rests for all");
}

#[test]
fn of_a_minute_each_caller_counts_once() {
    use AttemptOutcome::{Answered, Failed};
    let mut breaker = Breaker::new(SHARED);
    let mut opened = false;
    // Ada fails a hundred times and caller 2 every time, between nine others that are answered.
    for number in 0..100 {
        opened |= call(&mut breaker, Failed, 10);
        opened |= call_of(&mut breaker, caller(2), Failed, 10);
        opened |= call_of(&mut breaker, caller(3 + number % 9), Answered, 10);
    }
    assert!(!opened, "two of eleven");
    let mut breaker = Breaker::new(SHARED);
    let mut calls = 0_u32;
    while calls < 100 && breaker.state(at(10)) == BreakerState::Closed {
        let of = caller(u128::from(calls % 4 + 2));
        call_of(&mut breaker, of, if calls.is_multiple_of(2) { Failed } else { Answered }, 10);
        calls += 1;
    }
    assert_eq!(calls, 21, "half of the callers, with calls enough to tell");
}

#[test]
fn a_trial_that_fails_keeps_its_own_caller_waiting() {
    let mut breaker = Breaker::new(SHARED);
    for number in 1..=5 {
        call_of(&mut breaker, caller(number), AttemptOutcome::Failed, 0);
    }
    assert_eq!(breaker.state(at(0)), BreakerState::Open);
    assert!(!call(&mut breaker, AttemptOutcome::Failed, 30), "one trial opens it for nobody else");
    assert_eq!(breaker.admit(ADA, at(31)), Err(at(29)));
    assert!(!call_of(&mut breaker, caller(2), AttemptOutcome::Answered, 31));
    assert_eq!(breaker.state(at(31)), BreakerState::Closed, "another one's call tells that it is well");

    for number in 1..=5 {
        call_of(&mut breaker, caller(number), AttemptOutcome::Failed, 40);
    }
    assert!(!call(&mut breaker, AttemptOutcome::Failed, 70));
    assert!(!call(&mut breaker, AttemptOutcome::Failed, 100), "the same one again");
    assert!(call_of(&mut breaker, caller(2), AttemptOutcome::Failed, 101), "two of them");
    assert_eq!(breaker.admit(caller(3), at(102)), Err(at(29)));
}

proptest! {
    /// For any outcomes: it opens only on failures of `callers` callers since it last closed or opened.
    #[test]
    fn it_never_opens_on_fewer_callers(
        steps in prop::collection::vec((0..20_u64, 0..6_u128, 0..3_usize), 1..300),
        failures in 1..6_u32, callers in 1..4_u32,
    ) {
        let mut breaker = Breaker::new(BreakerRules { failures, callers, ..RULES });
        let (mut now, mut failed) = (0, std::collections::BTreeSet::new());
        for (passed, number, outcome) in steps {
            now += passed;
            let outcome = [AttemptOutcome::Answered, AttemptOutcome::SaidNo, AttemptOutcome::Failed][outcome];
            let Ok(admission) = breaker.admit(caller(number), at(now)) else { continue };
            if outcome == AttemptOutcome::Failed {
                failed.insert(number);
            }
            if breaker.note(admission, outcome, at(now)) {
                prop_assert!(failed.len() >= usize::try_from(callers).unwrap());
                failed.clear();
            }
        }
    }
}
