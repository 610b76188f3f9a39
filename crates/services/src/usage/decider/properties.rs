//! Properties of batches over any sequence of commands.

use chrono::TimeDelta;
use domain::entitlements::Overage;
use domain::idempotency::IdempotencyKey;
use domain::usage::{Hold, HoldId};
use domain::users::UserId;
use ports::entitlements::Meter;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::commands::{
    ChangeReservationCommand, CommandResult, ConsumeCommand, ConsumeOutcome, ExpireReservationCommand, LockMode,
    ReservationAction, ReservationChanged, ReservationOwner, ReserveCommand, ReserveOutcome, UndecidedCommand,
    UsageRequest,
};
use super::books::{BatchedCommand, TestBooks, entitlement, meter, user};
use super::{BatchCommand, BatchDecider};

const FEATURES: [&str; 2] = ["calls", "exports"];
const USERS: u128 = 2;

/// A command with its result in a batch.
#[derive(Clone, Debug, PartialEq)]
enum AnyCommand {
    Consume(ConsumeCommand, Option<CommandResult<ConsumeCommand>>),
    Reserve(ReserveCommand, Option<CommandResult<ReserveCommand>>),
    Change(ChangeReservationCommand, Option<CommandResult<ChangeReservationCommand>>),
    Expire(ExpireReservationCommand, Option<CommandResult<ExpireReservationCommand>>),
}

impl BatchedCommand for AnyCommand {
    fn idempotency_key(&self) -> Option<(UserId, IdempotencyKey)> {
        self.request().map(|request| (request.user_id, request.idempotency_key.clone()))
    }

    fn decide(&mut self, place: usize, decider: &mut BatchDecider<'_>) {
        match self {
            Self::Consume(command, result) => *result = Some(command.decide(place, decider)),
            Self::Reserve(command, result) => *result = Some(command.decide(place, decider)),
            Self::Change(command, result) => *result = Some(command.decide(place, decider)),
            Self::Expire(command, result) => *result = Some(command.decide(place, decider)),
        }
    }
}

impl AnyCommand {
    fn request(&self) -> Option<&UsageRequest> {
        match self {
            Self::Consume(ConsumeCommand(request), _) | Self::Reserve(ReserveCommand { request, .. }, _) => {
                Some(request)
            }
            Self::Change(..) | Self::Expire(..) => None,
        }
    }

    fn user_id(&self) -> UserId {
        match self {
            Self::Expire(command, _) => command.user_id,
            Self::Change(ChangeReservationCommand { owner: ReservationOwner::User(user_id), .. }, _) => *user_id,
            other => other.request().map_or(user(1), |request| request.user_id),
        }
    }

    /// Whether it was done for the first time.
    fn was_done(&self) -> bool {
        match self {
            Self::Consume(_, Some(Ok(ConsumeOutcome { decision, replayed })))
            | Self::Change(_, Some(Ok(ReservationChanged { decision, replayed, .. }))) => decision.allowed && !replayed,
            Self::Reserve(_, Some(Ok(ReserveOutcome::Reserved { replayed, .. }))) => !replayed,
            Self::Expire(_, Some(Ok(()))) => true,
            _ => false,
        }
    }

    fn needs_tokens(&self) -> bool {
        matches!(
            self,
            Self::Consume(_, Some(Err(UndecidedCommand::NeedsTokens(_))))
                | Self::Reserve(_, Some(Err(UndecidedCommand::NeedsTokens(_))))
                | Self::Change(_, Some(Err(UndecidedCommand::NeedsTokens(_))))
                | Self::Expire(_, Some(Err(UndecidedCommand::NeedsTokens(_))))
        )
    }

    /// Its result without ids, which depend on the order of all commands.
    fn figures(&self) -> String {
        match self {
            Self::Consume(_, result) => format!("{result:?}"),
            Self::Reserve(_, Some(Ok(ReserveOutcome::Reserved { reservation, decision, replayed }))) => {
                format!("{:?} {decision:?} {replayed}", reservation.expires_at)
            }
            Self::Reserve(_, result) => format!("{result:?}"),
            Self::Change(_, result) => format!("{result:?}"),
            Self::Expire(_, result) => format!("{result:?}"),
        }
    }
}

/// A drawn command: it changes one of the reservations that were made before, if it changes any.
#[derive(Clone, Debug)]
enum DrawnCommand {
    Consume(UsageRequest),
    Reserve(ReserveCommand),
    Change(Index, ReservationAction),
    Expire(Index),
}

fn drawn_request() -> impl Strategy<Value = UsageRequest> {
    (1..=USERS, 0..FEATURES.len(), 1_i64..12, 0_u32..16).prop_map(|(user, feature, amount, key)| {
        let Meter { user_id, feature_id } = meter(user, FEATURES[feature]);
        let idempotency_key = IdempotencyKey::parse(&format!("key {key}")).unwrap();
        UsageRequest { user_id, feature_id, amount, idempotency_key, api_key_id: None }
    })
}

fn drawn_command() -> impl Strategy<Value = DrawnCommand> {
    let seconds = |seconds| TimeDelta::seconds(seconds);
    prop_oneof![
        4 => drawn_request().prop_map(DrawnCommand::Consume),
        2 => (drawn_request(), 1_i64..3).prop_map(move |(request, ttl)| {
            DrawnCommand::Reserve(ReserveCommand { request, ttl: seconds(ttl) })
        }),
        1 => (any::<Index>(), 0_i64..20).prop_map(|(at, used)| DrawnCommand::Change(at, ReservationAction::Settle(used))),
        1 => any::<Index>().prop_map(|at| DrawnCommand::Change(at, ReservationAction::Release)),
        1 => (any::<Index>(), proptest::option::of(1_i64..30)).prop_map(move |(at, amount)| {
            DrawnCommand::Change(at, ReservationAction::Extend { amount, ttl: seconds(9) })
        }),
        1 => any::<Index>().prop_map(DrawnCommand::Expire),
    ]
}

/// What the users have, the reservations that they make in a first batch, and the commands after it.
#[derive(Clone, Debug)]
struct DrawnBatch {
    limit: i64,
    tokens: i64,
    overage: Overage,
    reserved: Vec<UsageRequest>,
    commands: Vec<DrawnCommand>,
}

fn drawn_batch() -> impl Strategy<Value = DrawnBatch> {
    let commands = proptest::collection::vec(drawn_command(), 0..40);
    let reserved = proptest::collection::vec(drawn_request(), 0..6);
    (0_i64..40, 0_i64..30, any::<bool>(), reserved, commands).prop_map(|(limit, tokens, pays, reserved, commands)| {
        let overage = if pays { Overage::Tokens } else { Overage::Block };
        DrawnBatch { limit, tokens, overage, reserved, commands }
    })
}

/// A batch that may move the tokens of all its users.
const SPEND: LockMode = LockMode::WaitAndSpend(UserId(uuid::Uuid::nil()));

impl DrawnBatch {
    fn books(&self) -> TestBooks {
        let meters = (1..=USERS).flat_map(|user| FEATURES.map(|name| (user, name)));
        let terms = meters.map(|(user, name)| (meter(user, name), entitlement(name, Some(self.limit), self.overage)));
        let mut books = TestBooks::new(terms, self.tokens);
        let of_setup = |request: &UsageRequest| {
            let request = UsageRequest { idempotency_key: IdempotencyKey::of_id(uuid::Uuid::nil()), ..request.clone() };
            AnyCommand::Reserve(ReserveCommand { request, ttl: TimeDelta::seconds(1) }, None)
        };
        for command in self.reserved.iter().map(of_setup) {
            books.granted.clear();
            books.run(&mut [command], SPEND);
        }
        books
    }

    fn commands(&self, books: &TestBooks) -> Vec<AnyCommand> {
        let reservations: Vec<&Hold> = books.reservations().collect();
        let at = |index: &Index| (!reservations.is_empty()).then(|| reservations[index.index(reservations.len())]);
        let of = |hold: &Hold| -> (HoldId, UserId) { (hold.id, hold.user_id) };
        let command = |drawn: &DrawnCommand| match drawn {
            DrawnCommand::Consume(request) => Some(AnyCommand::Consume(ConsumeCommand(request.clone()), None)),
            DrawnCommand::Reserve(command) => Some(AnyCommand::Reserve(command.clone(), None)),
            DrawnCommand::Change(index, action) => at(index).map(of).map(|(reservation_id, user_id)| {
                let owner = ReservationOwner::User(user_id);
                AnyCommand::Change(ChangeReservationCommand { reservation_id, owner, action: action.clone() }, None)
            }),
            DrawnCommand::Expire(index) => at(index).map(of).map(|(reservation_id, user_id)| {
                AnyCommand::Expire(ExpireReservationCommand { reservation_id, user_id }, None)
            }),
        };
        self.commands.iter().filter_map(command).collect()
    }
}

/// The state of the books that commands can change, without ids.
fn state(books: &TestBooks) -> String {
    let mut reservations: Vec<_> = books
        .reservations()
        .map(|hold| format!("{:?}", Hold { id: HoldId(uuid::Uuid::nil()), ..hold.clone() }))
        .collect();
    reservations.sort_unstable();
    format!("{:?} {:?} {:?} {reservations:?}", books.meters, books.tokens, books.used)
}

proptest! {
    /// A batch grants no more than limits and balances have, and its books balance.
    #[test]
    fn a_batch_never_grants_more_than_there_is(drawn in drawn_batch(), spends in any::<bool>()) {
        let mut books = drawn.books();
        let mut commands = drawn.commands(&books);
        books.run(&mut commands, if spends { SPEND } else { LockMode::SkipLocked });
        for (meter, (_, terms)) in &books.meters {
            let of_meter = || books.pending().filter(|hold| hold.feature_id == meter.feature_id && hold.user_id == meter.user_id);
            prop_assert!(terms.tally.against_limit() <= drawn.limit, "{:?}", terms.tally);
            prop_assert_eq!(terms.tally.reserved, of_meter().map(Hold::quota).sum::<i64>());
            prop_assert_eq!(terms.tally.used, books.used.get(meter).copied().unwrap_or_default());
        }
        for (user_id, tokens) in &books.tokens {
            let reserved = books.pending().filter(|hold| hold.user_id == *user_id).map(|hold| hold.tokens);
            prop_assert_eq!(tokens.reserved, reserved.sum::<i64>());
            prop_assert!(tokens.balance >= tokens.reserved && tokens.reserved >= 0, "{:?}", tokens);
        }
    }

    /// Commands have the outcomes that they would have in batches of their own, one after the other.
    #[test]
    fn a_batch_decides_as_its_commands_alone_would_be(drawn in drawn_batch(), spends in any::<bool>()) {
        let mode = if spends { SPEND } else { LockMode::SkipLocked };
        let (mut together, mut apart) = (drawn.books(), drawn.books());
        let mut commands = drawn.commands(&together);
        let mut alone = commands.clone();
        together.run(&mut commands, mode);
        for command in &mut alone {
            apart.run(std::slice::from_mut(command), mode);
        }
        let figures = |commands: &[AnyCommand]| commands.iter().map(AnyCommand::figures).collect::<Vec<_>>();
        prop_assert_eq!(figures(&commands), figures(&alone));
        prop_assert_eq!(state(&together), state(&apart));
    }

    /// What one user does has no influence on what another is granted.
    #[test]
    fn commands_of_different_users_may_change_places(drawn in drawn_batch()) {
        let (mut given, mut sorted) = (drawn.books(), drawn.books());
        let mut commands = drawn.commands(&given);
        let mut by_user = commands.clone();
        by_user.sort_by_key(|command| std::cmp::Reverse(command.user_id().0));
        given.run(&mut commands, SPEND);
        sorted.run(&mut by_user, SPEND);
        commands.sort_by_key(|command| std::cmp::Reverse(command.user_id().0));
        let figures = |commands: &[AnyCommand]| commands.iter().map(AnyCommand::figures).collect::<Vec<_>>();
        prop_assert_eq!(figures(&commands), figures(&by_user));
        prop_assert_eq!(state(&given), state(&sorted));
    }

    /// A command that is refused, repeated, or left to a later batch writes nothing.
    #[test]
    fn only_what_is_done_is_written(drawn in drawn_batch(), spends in any::<bool>()) {
        let mut books = drawn.books();
        for mut command in drawn.commands(&books) {
            let (rows_before, state_before) = (books.rows_written, state(&books));
            books.run(std::slice::from_mut(&mut command), if spends { SPEND } else { LockMode::SkipLocked });
            if !command.was_done() {
                prop_assert_eq!(books.rows_written, rows_before, "{:?}", command);
                prop_assert_eq!(state(&books), state_before);
            }
        }
    }

    /// Without the lock on the tokens no token moves, and no command is refused for a lack of them: it is left to a
    /// batch with the lock.
    #[test]
    fn tokens_move_only_under_their_lock(drawn in drawn_batch()) {
        let mut books = drawn.books();
        let before = books.tokens.clone();
        let mut commands = drawn.commands(&books);
        books.run(&mut commands, LockMode::SkipLocked);
        prop_assert_eq!(&books.tokens, &before);
        prop_assert!(!commands.iter().any(|command| command.figures().contains("InsufficientTokens")));
        let mut later: Vec<_> = commands.into_iter().filter(AnyCommand::needs_tokens).collect();
        books.run(&mut later, SPEND);
        prop_assert!(!later.iter().any(AnyCommand::needs_tokens));
    }

    /// The same commands again return what was granted first, and count nothing.
    #[test]
    fn a_batch_that_is_sent_again_counts_nothing(drawn in drawn_batch()) {
        let mut books = drawn.books();
        let requests = |command: &AnyCommand| command.request().is_some();
        let mut commands: Vec<_> = drawn.commands(&books).into_iter().filter(requests).collect();
        books.run(&mut commands, SPEND);
        let mut again: Vec<_> = commands.iter().filter(|command| command.was_done()).cloned().collect();
        let (rows_before, first) = (books.rows_written, again.clone());
        books.run(&mut again, SPEND);
        prop_assert_eq!(books.rows_written, rows_before);
        for (first, again) in first.iter().zip(&again) {
            match (first, again) {
                (AnyCommand::Consume(_, Some(Ok(first))), AnyCommand::Consume(_, Some(Ok(again)))) => {
                    prop_assert!(again.replayed && again.decision == first.decision);
                }
                (
                    AnyCommand::Reserve(_, Some(Ok(ReserveOutcome::Reserved { reservation: first, .. }))),
                    AnyCommand::Reserve(_, Some(Ok(ReserveOutcome::Reserved { reservation, replayed, .. }))),
                ) => prop_assert!(*replayed && reservation == first),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
