//! Single batches of consumptions and reservations.

use chrono::TimeDelta;
use domain::entitlements::{Overage, Reason};
use domain::features::FeatureKind;
use domain::idempotency::IdempotencyKey;
use domain::usage::HoldId;
use domain::users::UserId;
use ports::entitlements::Meter;
use uuid::Uuid;

use super::super::commands::{
    ChangeReservationCommand, CommandResult, ConsumeCommand, ConsumeError, ExpireReservationCommand, LockMode,
    ReservationAction, ReservationError, ReservationOwner, ReserveCommand, ReserveOutcome, UndecidedCommand,
    UnknownMeter, UsageCommand, UsageRequest,
};
use super::books::{BatchedCommand, TestBooks, entitlement, meter, user};
use super::{BatchCommand, BatchDecider};

/// A command with its result.
struct Decided<C: UsageCommand>(C, Option<CommandResult<C>>);

impl<C: BatchCommand> BatchedCommand for Decided<C> {
    fn idempotency_key(&self) -> Option<(UserId, IdempotencyKey)> {
        UsageCommand::idempotency_key(&self.0).map(|key| (key.user_id, key.key.clone()))
    }

    fn decide(&mut self, place: usize, decider: &mut BatchDecider<'_>) {
        self.1 = Some(self.0.decide(place, decider));
    }
}

fn run<C: BatchCommand>(books: &mut TestBooks, commands: Vec<C>, lock_mode: LockMode) -> Vec<CommandResult<C>> {
    let mut commands: Vec<_> = commands.into_iter().map(|command| Decided(command, None)).collect();
    books.run(&mut commands, lock_mode);
    commands.into_iter().map(|Decided(_, result)| result.unwrap()).collect()
}

fn request(amount: i64, key: &str) -> UsageRequest {
    let Meter { user_id, feature_id } = meter(1, "calls");
    let idempotency_key = IdempotencyKey::parse(key).unwrap();
    UsageRequest { user_id, feature_id, amount, idempotency_key, api_key_id: None }
}

fn reserve(amount: i64, key: &str) -> ReserveCommand {
    ReserveCommand { request: request(amount, key), ttl: TimeDelta::seconds(60) }
}

fn books(limit: i64, overage: Overage, tokens: i64) -> TestBooks {
    TestBooks::new([(meter(1, "calls"), entitlement("calls", Some(limit), overage))], tokens)
}

fn reserved(books: &mut TestBooks, amount: i64, lock_mode: LockMode) -> HoldId {
    match run(books, vec![reserve(amount, "reserved")], lock_mode).remove(0) {
        Ok(ReserveOutcome::Reserved { reservation, .. }) => reservation.id,
        other => panic!("{other:?}"),
    }
}

fn change(reservation_id: HoldId, action: ReservationAction) -> ChangeReservationCommand {
    ChangeReservationCommand { reservation_id, owner: ReservationOwner::User(user(1)), action }
}

const SPEND: LockMode = LockMode::WaitAndSpend(UserId(Uuid::from_u128(1)));

#[test]
fn the_last_units_of_a_limit_go_to_the_first_commands() {
    let mut books = books(10, Overage::Block, 0);
    let amounts = [6, 5, 4, 1];
    let commands = amounts.map(|amount| ConsumeCommand(request(amount, &format!("key {amount}"))));
    let results = run(&mut books, commands.to_vec(), LockMode::SkipLocked);
    let granted: Vec<_> = results.iter().map(|result| result.as_ref().unwrap().decision.allowed).collect();
    assert_eq!(granted, [true, false, true, false]);
    assert_eq!(books.tally(&meter(1, "calls")).used, 10);
}

#[test]
fn an_idempotency_key_is_granted_once_in_a_batch_and_for_one_request() {
    let mut books = books(10, Overage::Block, 0);
    let requests = [request(3, "same"), request(3, "same"), request(4, "same")];
    let results = run(&mut books, requests.map(ConsumeCommand).to_vec(), LockMode::SkipLocked);
    let [Ok(first), Ok(again), other] = results.as_slice() else { panic!("{results:?}") };
    assert!(!first.replayed && again.replayed && again.decision == first.decision);
    assert_eq!(*other, Err(UndecidedCommand::Error(ConsumeError::KeyReused)), "another amount");
    let as_reservation = run(&mut books, vec![reserve(3, "same")], LockMode::SkipLocked);
    assert_eq!(as_reservation, [Err(UndecidedCommand::Error(ConsumeError::KeyReused))]);
    assert_eq!(books.tally(&meter(1, "calls")).used, 3);
}

#[test]
fn a_refused_idempotency_key_may_be_granted_later_in_the_batch() {
    let mut books = books(10, Overage::Block, 0);
    let requests = [request(11, "same"), request(10, "same"), request(10, "same")];
    let results = run(&mut books, requests.map(ConsumeCommand).to_vec(), LockMode::SkipLocked);
    let allowed = |result: &CommandResult<ConsumeCommand>| {
        result.as_ref().map(|outcome| (outcome.decision.allowed, outcome.replayed)).unwrap()
    };
    assert_eq!(results.iter().map(allowed).collect::<Vec<_>>(), [(false, false), (true, false), (true, true)]);
}

#[test]
fn tokens_are_one_balance_for_all_features() {
    let both = ["calls", "exports"].map(|name| (meter(1, name), entitlement(name, Some(0), Overage::Tokens)));
    let mut books = TestBooks::new(both, 10);
    let exports = UsageRequest { feature_id: meter(1, "exports").feature_id, ..request(5, "exports") };
    let commands = || vec![ConsumeCommand(request(6, "calls")), ConsumeCommand(exports.clone())];
    let left = run(&mut books, commands(), LockMode::Wait);
    assert!(left.iter().all(|result| *result == Err(UndecidedCommand::NeedsTokens(user(1)))), "{left:?}");
    assert_eq!(books.rows_written, 0);
    let paid = run(&mut books, commands(), SPEND);
    assert_eq!(paid[1].as_ref().unwrap().decision.reason, Reason::InsufficientTokens);
    assert_eq!((books.tokens_available(user(1)), books.tally(&meter(1, "calls")).overage), (4, 6));
}

#[test]
fn what_does_not_exist_is_an_error_that_says_what() {
    let mut books = books(10, Overage::Block, 0);
    let other_user = ConsumeCommand(UsageRequest { user_id: user(2), ..request(1, "user") });
    let of_boolean = ConsumeCommand(request(2, "boolean"));
    books.meters.get_mut(&meter(1, "calls")).unwrap().0 = FeatureKind::Boolean;
    let results = run(&mut books, vec![other_user, of_boolean], LockMode::SkipLocked);
    let error = |result: &CommandResult<ConsumeCommand>| result.clone().unwrap_err();
    assert_eq!(error(&results[0]), UndecidedCommand::Error(UnknownMeter::User.into()));
    assert_eq!(error(&results[1]), UndecidedCommand::Error(ConsumeError::NotMetered(meter(1, "calls").feature_id)));
    let unknown = run(&mut books, vec![change(HoldId(Uuid::nil()), ReservationAction::Release)], LockMode::Wait);
    assert_eq!(unknown, [Err(UndecidedCommand::Error(ReservationError::Unknown))]);
}

#[test]
fn a_reservation_ends_once_in_a_batch() {
    let mut books = books(10, Overage::Block, 0);
    let id = reserved(&mut books, 8, LockMode::SkipLocked);
    let actions = [ReservationAction::Settle(5), ReservationAction::Settle(5), ReservationAction::Release];
    let commands = actions.map(|action| change(id, action));
    let results = run(&mut books, commands.to_vec(), LockMode::SkipLocked);
    let [Ok(first), Ok(again), released] = results.as_slice() else { panic!("{results:?}") };
    assert!(!first.replayed && again.replayed && again.decision == first.decision);
    let ended = ReservationError::Ended(first.reservation.status, Some(5));
    assert_eq!(*released, Err(UndecidedCommand::Error(ended)));
    let tally = books.tally(&meter(1, "calls"));
    assert_eq!((tally.used, tally.reserved), (5, 0));
}

#[test]
fn what_a_release_returns_is_there_for_the_next_command() {
    let mut books = books(10, Overage::Tokens, 5);
    let id = reserved(&mut books, 13, SPEND);
    assert_eq!(books.tokens_available(user(1)), 2);
    run(&mut books, vec![change(id, ReservationAction::Release)], SPEND).remove(0).unwrap();
    assert_eq!(books.tokens_available(user(1)), 5);
    let results = run(&mut books, vec![ConsumeCommand(request(15, "all"))], SPEND);
    assert!(results[0].as_ref().unwrap().decision.allowed);
    assert_eq!((books.tokens_available(user(1)), books.tokens[&user(1)].reserved), (0, 0));
}

#[test]
fn a_reservation_of_another_user_is_unknown_and_a_busy_one_is_left() {
    let mut books = books(10, Overage::Block, 0);
    let id = reserved(&mut books, 8, LockMode::SkipLocked);
    let of = |owner| vec![ChangeReservationCommand { owner, ..change(id, ReservationAction::Settle(1)) }];
    let other = run(&mut books, of(ReservationOwner::User(user(2))), LockMode::SkipLocked);
    assert_eq!(other, [Err(UndecidedCommand::Error(ReservationError::Unknown))]);
    books.busy.insert(id);
    let busy = run(&mut books, of(ReservationOwner::Any), LockMode::SkipLocked);
    assert_eq!(busy, [Err(UndecidedCommand::Busy)]);
    books.busy.clear();
    assert!(run(&mut books, of(ReservationOwner::Any), LockMode::SkipLocked)[0].is_ok());
}

#[test]
fn only_a_reservation_whose_time_is_over_expires() {
    let mut books = books(10, Overage::Block, 0);
    let id = reserved(&mut books, 8, LockMode::SkipLocked);
    let expire = || vec![ExpireReservationCommand { reservation_id: id, user_id: user(1) }];
    books.are_due = false;
    let rows_before = books.rows_written;
    assert_eq!(run(&mut books, expire(), LockMode::SkipLocked), [Ok(())]);
    assert_eq!((books.rows_written, books.tally(&meter(1, "calls")).reserved), (rows_before, 8));
    books.are_due = true;
    assert_eq!(run(&mut books, expire(), LockMode::SkipLocked), [Ok(())]);
    assert_eq!(books.tally(&meter(1, "calls")).reserved, 0);
}
