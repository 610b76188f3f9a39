//! Model calls in batches: what they reserve of plans, tokens and the limits of API keys.

use chrono::TimeDelta;
use domain::ai::{CallUsage, ModelId, ProviderId, TokenUsage};
use domain::api_keys::{ApiKeyId, KeyBudget, KeyBudgets, KeyLimits};
use domain::entitlements::Overage;
use domain::idempotency::IdempotencyKey;
use domain::prices::{Cost, NanoUsd};
use domain::usage::{ApiKeyUsage, ApiKeyWindows, CallPhase, CallTerms, HoldId, KeyLimitReached, WindowKind};
use domain::users::UserId;
use ports::usage::{ApiKeyWindow, BeyondHold, CallOutcome, CallResult};
use proptest::prelude::*;
use uuid::Uuid;

use super::super::call_commands::{
    CallEnded, CallGrant, CallGrowth, EndCallCommand, MarkCallCommand, MarkCallOutcome, ReserveCallCommand,
    ReserveCallOutcome, ReservedCallEnd,
};
use super::super::commands::{
    ChangeReservationCommand, CommandResult, LockMode, ReservationAction, ReservationError, ReservationOwner,
    UndecidedCommand,
};
use super::books::{BatchedCommand, NOW, TestBooks, entitlement, meter, user};
use super::{BatchCommand, BatchDecider};

const SPEND: LockMode = LockMode::WaitAndSpend(UserId(Uuid::from_u128(1)));
const CHILD: ApiKeyId = ApiKeyId(Uuid::from_u128(11));
const MAKER: ApiKeyId = ApiKeyId(Uuid::from_u128(12));

/// A command of a call with its result.
#[derive(Debug)]
enum AnyCommand {
    Reserve(Box<ReserveCallCommand>, Option<CommandResult<ReserveCallCommand>>),
    Mark(MarkCallCommand, Option<CommandResult<MarkCallCommand>>),
    End(EndCallCommand, Option<CommandResult<EndCallCommand>>),
    Change(ChangeReservationCommand, Option<CommandResult<ChangeReservationCommand>>),
}

impl BatchedCommand for AnyCommand {
    fn idempotency_key(&self) -> Option<(UserId, IdempotencyKey)> {
        None
    }

    fn decide(&mut self, place: usize, decider: &mut BatchDecider<'_>) {
        match self {
            Self::Reserve(command, result) => *result = Some(command.decide(place, decider)),
            Self::Mark(command, result) => *result = Some(command.decide(place, decider)),
            Self::End(command, result) => *result = Some(command.decide(place, decider)),
            Self::Change(command, result) => *result = Some(command.decide(place, decider)),
        }
    }
}

/// Limits of the calling key and of its maker.
fn budgets(child: KeyLimits, maker: KeyLimits) -> KeyBudgets {
    let of = |lineage_id, limits| KeyBudget { lineage_id, limits };
    KeyBudgets::new(of(CHILD, child), [of(MAKER, maker)])
}

fn tokens_per_minute(tokens: i64) -> KeyLimits {
    KeyLimits { tokens_per_minute: Some(tokens), ..KeyLimits::default() }
}

fn reserve(number: u128, tokens: i64, budgets: &KeyBudgets) -> AnyCommand {
    let terms = CallTerms {
        provider: ProviderId::OPENAI,
        model: ModelId::parse("asked").unwrap(),
        is_sandbox: false,
        input_tokens: 1,
        max_output_tokens: 1,
        delivered_tokens: 0,
        max_cost_nano_usd: Some(tokens * 10),
        began_at: NOW,
        session_id: None,
        on_key: None,
        key_lineages: Vec::new(),
    };
    let command = ReserveCallCommand {
        user_id: user(1),
        api_key_id: budgets.iter().next().map(|budget| budget.lineage_id.0),
        reservation_id: Some(HoldId(Uuid::from_u128(number))),
        ttl: TimeDelta::seconds(60),
        terms,
        tokens,
        budgets: budgets.clone(),
    };
    AnyCommand::Reserve(Box::new(command), None)
}

fn mark(number: u128, phase: CallPhase, model: &str, growth: Option<CallGrowth>) -> AnyCommand {
    let command = MarkCallCommand {
        reservation_id: HoldId(Uuid::from_u128(number)),
        user_id: user(1),
        phase,
        provider: ProviderId::CLAUDE,
        model: ModelId::parse(model).unwrap(),
        delivered_tokens: if phase == CallPhase::FirstByte { 7 } else { 0 },
        growth,
        ttl: TimeDelta::seconds(90),
    };
    AnyCommand::Mark(command, None)
}

fn settle(number: u128, tokens: u64, outcome: CallOutcome) -> AnyCommand {
    let amount = NanoUsd(i64::try_from(tokens).unwrap() * 10);
    let result = CallResult {
        provider: ProviderId::OPENAI,
        model: "asked".to_owned(),
        usage: CallUsage::standard(TokenUsage { visible_output: tokens, ..TokenUsage::default() }),
        reported: None,
        cost: Some(Cost { amount, version: String::new(), assumed: Vec::new() }),
        outcome,
        latency_ms: None,
        session_id: None,
        messages: Vec::new(),
        beyond: BeyondHold::default(),
    };
    end(number, ReservedCallEnd::Settled(Box::new(result)))
}

fn end(number: u128, end: ReservedCallEnd) -> AnyCommand {
    AnyCommand::End(EndCallCommand { reservation_id: HoldId(Uuid::from_u128(number)), user_id: user(1), end }, None)
}

fn grant(command: &AnyCommand) -> &CallGrant {
    match command {
        AnyCommand::Reserve(_, Some(Ok(ReserveCallOutcome::Reserved(grant)))) => grant,
        other => panic!("{other:?}"),
    }
}

fn ended(command: &AnyCommand) -> CallEnded {
    match command {
        AnyCommand::End(_, Some(Ok(ended))) => *ended,
        other => panic!("{other:?}"),
    }
}

fn window(lineage: ApiKeyId, kind: WindowKind) -> ApiKeyWindow {
    let ApiKeyWindows { minute, month } = ApiKeyWindows::at(NOW);
    let start = if kind == WindowKind::Minute { minute } else { month };
    ApiKeyWindow { user_id: user(1), api_key_id: lineage, kind, start }
}

/// Books of a user with this limit of requests, and of two keys.
fn books(limit: i64, tokens: i64) -> TestBooks {
    let terms = entitlement("ai_requests", Some(limit), Overage::Tokens);
    let mut books = TestBooks::new([(meter(1, "ai_requests"), terms)], tokens);
    for lineage in [CHILD, MAKER] {
        for kind in [WindowKind::Minute, WindowKind::Month] {
            books.windows.insert(window(lineage, kind), Some(ApiKeyUsage::default()));
        }
    }
    books
}

fn minute(books: &TestBooks, lineage: ApiKeyId) -> ApiKeyUsage {
    books.windows[&window(lineage, WindowKind::Minute)].unwrap()
}

#[test]
fn calls_of_one_batch_share_the_limits_of_their_key_and_its_maker() {
    let mut books = books(100, 0);
    let limits = budgets(tokens_per_minute(100), tokens_per_minute(70));
    let mut calls = [reserve(1, 40, &limits), reserve(2, 40, &limits), reserve(3, 30, &limits)];
    books.run(&mut calls, LockMode::SkipLocked);
    let left = grant(&calls[0]).key_tokens.unwrap();
    assert_eq!((left.limit, left.left), (70, 30), "the maker leaves less");
    let AnyCommand::Reserve(_, Some(Ok(ReserveCallOutcome::KeyLimit { reached, .. }))) = &calls[1] else {
        panic!("{calls:?}")
    };
    assert_eq!(*reached, KeyLimitReached::Tokens { limit: 70, used: 40, needed: 40 });
    assert_eq!(grant(&calls[2]).key_tokens.unwrap().left, 0);
    for lineage in [CHILD, MAKER] {
        let usage = minute(&books, lineage);
        assert_eq!((usage.requests, usage.tokens_held), (2, 70), "the refused call is not counted");
    }
    assert_eq!(books.tally(&meter(1, "ai_requests")).reserved, 2);
}

#[test]
fn a_call_that_outgrows_its_reservation_gets_all_of_the_growth_or_nothing() {
    let mut books = books(100, 0);
    let limits = budgets(tokens_per_minute(100), KeyLimits::default());
    books.run(&mut [reserve(1, 40, &limits), reserve(2, 20, &limits)], LockMode::SkipLocked);
    let growth = |tokens| Some(CallGrowth { tokens, cost: 0, budgets: limits.clone() });
    let mut marks = [
        mark(1, CallPhase::Reserved, "asked", growth(81)),
        mark(1, CallPhase::Reserved, "asked", growth(80)),
        mark(2, CallPhase::Reserved, "asked", growth(21)),
    ];
    books.run(&mut marks, LockMode::SkipLocked);
    let outcomes = marks.iter().map(|mark| match mark {
        AnyCommand::Mark(_, Some(Ok(outcome))) => *outcome,
        other => panic!("{other:?}"),
    });
    let expected = [MarkCallOutcome::NotGrown, MarkCallOutcome::Marked, MarkCallOutcome::NotGrown];
    assert_eq!(outcomes.collect::<Vec<_>>(), expected);
    assert_eq!(minute(&books, CHILD).tokens_held, 100);
    books.run(&mut [end(1, ReservedCallEnd::Released), end(2, ReservedCallEnd::Released)], LockMode::SkipLocked);
    assert_eq!(minute(&books, CHILD), ApiKeyUsage::default(), "a call that used nothing is not counted");
}

#[test]
fn a_call_is_settled_once_and_a_sweep_leaves_one_alone_that_goes_on() {
    let mut books = books(100, 0);
    let limits = budgets(tokens_per_minute(100), KeyLimits::default());
    books.run(&mut [reserve(1, 40, &limits)], LockMode::SkipLocked);
    books.are_due = false;
    let mut swept = [settle(1, 9, CallOutcome::Swept)];
    books.run(&mut swept, LockMode::SkipLocked);
    assert!(ended(&swept[0]).replayed, "it was marked since it was listed");
    let mut ends = [settle(1, 30, CallOutcome::Ok), settle(1, 9, CallOutcome::Swept), settle(1, 30, CallOutcome::Ok)];
    books.run(&mut ends, LockMode::SkipLocked);
    assert_eq!(ends.each_ref().map(|command| ended(command).replayed), [false, true, true]);
    let usage = minute(&books, MAKER);
    assert_eq!((usage.requests, usage.tokens, usage.tokens_held, usage.cost), (1, 30, 0, 300));
    assert_eq!(books.tally(&meter(1, "ai_requests")).used, 1);
}

#[test]
fn a_sweep_settles_a_call_whose_time_is_over() {
    let mut books = books(100, 0);
    books.run(&mut [reserve(1, 40, &KeyBudgets::default())], LockMode::SkipLocked);
    let mut swept = [settle(1, 9, CallOutcome::Swept)];
    books.run(&mut swept, LockMode::SkipLocked);
    assert!(!ended(&swept[0]).replayed);
}

#[test]
fn a_mark_names_the_model_that_answers_and_an_older_one_changes_nothing() {
    let mut books = books(100, 0);
    books.run(&mut [reserve(1, 40, &KeyBudgets::default())], LockMode::SkipLocked);
    let marks = [(CallPhase::FirstByte, "fallback"), (CallPhase::Dispatched, "asked")];
    books.run(&mut marks.map(|(phase, model)| mark(1, phase, model, None)), LockMode::SkipLocked);
    let call = books.reservations().next().unwrap().call.clone().unwrap();
    assert_eq!((call.phase, call.terms.model.as_str()), (CallPhase::FirstByte, "fallback"));
    assert_eq!((call.terms.delivered_tokens, call.terms.provider), (7, ProviderId::CLAUDE));
}

#[test]
fn calls_and_reservations_are_changed_by_commands_of_their_own() {
    let mut books = books(100, 0);
    books.run(&mut [reserve(1, 40, &KeyBudgets::default())], LockMode::SkipLocked);
    let command = ChangeReservationCommand {
        reservation_id: HoldId(Uuid::from_u128(1)),
        owner: ReservationOwner::Any,
        action: ReservationAction::Settle(0),
    };
    let mut commands = [AnyCommand::Change(command, None)];
    books.run(&mut commands, LockMode::SkipLocked);
    let AnyCommand::Change(_, Some(result)) = &commands[0] else { panic!("{commands:?}") };
    assert_eq!(*result, Err(UndecidedCommand::Error(ReservationError::Unknown)));
}

#[test]
fn a_call_under_a_busy_window_is_left_and_one_without_limits_needs_none() {
    let mut books = books(100, 0);
    books.windows.insert(window(MAKER, WindowKind::Month), None);
    let limited = budgets(tokens_per_minute(100), KeyLimits::default());
    let unlimited = budgets(KeyLimits::default(), KeyLimits::default());
    let mut calls = [reserve(1, 40, &limited), reserve(2, 40, &unlimited)];
    books.run(&mut calls, LockMode::SkipLocked);
    let AnyCommand::Reserve(_, Some(result)) = &calls[0] else { panic!("{calls:?}") };
    assert_eq!(*result, Err(UndecidedCommand::Busy));
    assert_eq!(grant(&calls[1]).key_tokens, None);
    assert_eq!(books.reservations().count(), 1);
}

/// A call, how much it reserves, whether it grows, and which part of its reservation it uses.
#[derive(Clone, Copy, Debug)]
struct DrawnCall {
    tokens: i64,
    growth: i64,
    used_percent: i64,
}

fn drawn_call() -> impl Strategy<Value = DrawnCall> {
    (1_i64..50, 0_i64..40, 0_i64..=100).prop_map(|(tokens, growth, used_percent)| DrawnCall {
        tokens,
        growth,
        used_percent,
    })
}

proptest! {
    /// Calls that use no more than they reserved never exceed the limits of their keys or the user's balance, in any
    /// batches, and what they reserve is released when they end.
    #[test]
    fn calls_stay_within_the_limits_of_their_keys_and_the_balance(
        calls in proptest::collection::vec(drawn_call(), 1..20), batch_size in 1_usize..6, limit in 0_i64..200, own in 0_i64..200,
        requests in 0_i64..4, balance in 0_i64..300,
    ) {
        let mut books = books(requests, balance);
        let limits = budgets(tokens_per_minute(own), tokens_per_minute(limit));
        for (round, calls) in calls.chunks(batch_size).enumerate() {
            let number = |place: usize| (round * 100 + place + 1) as u128;
            let reserve = |(place, call): (usize, &DrawnCall)| reserve(number(place), call.tokens, &limits);
            books.run(&mut calls.iter().enumerate().map(reserve).collect::<Vec<_>>(), SPEND);
            let grow = |(place, call): (usize, &DrawnCall)| {
                let growth = CallGrowth { tokens: call.tokens + call.growth, cost: 0, budgets: limits.clone() };
                mark(number(place), CallPhase::Reserved, "asked", Some(growth))
            };
            books.run(&mut calls.iter().enumerate().map(grow).collect::<Vec<_>>(), SPEND);
            let reserved: i64 = books.pending().map(|hold| hold.call.as_ref().unwrap().terms.on_key.unwrap().tokens).sum();
            for (lineage, limit) in [(CHILD, own), (MAKER, limit)] {
                let usage = minute(&books, lineage);
                prop_assert!(usage.tokens + usage.tokens_held <= limit, "{:?}", usage);
                prop_assert_eq!(usage.tokens_held, reserved);
            }
            prop_assert!(books.tokens_available(user(1)) >= 0);
            let settle = |(place, call): (usize, &DrawnCall)| {
                let tokens = call.tokens * call.used_percent / 100;
                settle(number(place), tokens.unsigned_abs(), CallOutcome::Ok)
            };
            books.run(&mut calls.iter().enumerate().map(settle).collect::<Vec<_>>(), SPEND);
            prop_assert_eq!(books.pending().count(), 0);
            prop_assert_eq!(minute(&books, MAKER).tokens_held, 0);
            prop_assert_eq!(books.tokens[&user(1)].reserved, 0);
            prop_assert!(books.tokens[&user(1)].balance >= 0);
            let counted = i64::try_from(books.reservations().count()).unwrap();
            prop_assert_eq!((books.tally(&meter(1, "ai_requests")).used, minute(&books, CHILD).requests), (counted, counted));
        }
    }
}
