//! A batch: commands that are decided under one set of locks and written in one transaction.
//!
//! Four messages, however many commands: BEGIN with role and time limits; one SELECT that locks the counters in sorted
//! order and reads all that decides; one statement that writes counters, events and keys; COMMIT. A counter that is not
//! there yet costs two more, once a period. Between reading and writing every command is decided in the order of its
//! arrival by `domain::usage::consume`: SQL only locks, reads and writes. Nothing is answered before the COMMIT is.

use std::collections::HashMap;

use domain::entitlements::{Decision, Entitlement};
use domain::features::{FeatureId, FeatureKind};
use domain::idempotency::IdempotencyKey;
use domain::usage::{consume, needs_tokens};
use domain::users::UserId;
use ports::randomness::Randomness;
use ports::store::{Scope, Store, StoreError, UnitOfWork};
use ports::usage::{Grant, KeptOutcome, KeyOfMeter, LockedBatch, Meter, MeterState, Patience};
use thiserror::Error;
use uuid::Uuid;

/// One consumption that somebody asks for. `amount` is positive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumeCommand {
    /// The charged user, to whom the key belongs.
    pub user_id: UserId,
    pub feature_id: FeatureId,
    pub amount: i64,
    pub key: IdempotencyKey,
    /// The API key by which it was asked for, for the event.
    pub api_key_id: Option<Uuid>,
}

/// What a command came to. A refusal is an answer, not an error: it has a decision too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumed {
    pub decision: Decision,
    /// Whether this is the first outcome again.
    pub replayed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConsumeError {
    #[error("there is no such user")]
    UnknownUser,
    #[error("there is no feature `{0}`")]
    UnknownFeature(FeatureId),
    #[error("the feature `{0}` is had or not, so it is consumed one at a time")]
    NotMetered(FeatureId),
    #[error("this idempotency key was used for something else")]
    KeyReused,
    #[error("too many requests are waiting to be counted")]
    QueueFull,
    #[error("the same counter is changed by too many others")]
    Contended,
    #[error("the database is away: {0}")]
    Away(String),
    #[error("the outcome of a commit is not known: {0}")]
    InDoubt(String),
    #[error("a fault of ours: {0}")]
    Fault(String),
}

impl From<StoreError> for ConsumeError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict => Self::Contended,
            StoreError::Unavailable(why) => Self::Away(why),
            StoreError::InDoubt(why) => Self::InDoubt(why),
            other => Self::Fault(other.to_string()),
        }
    }
}

/// What became of one command of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Settled(Result<Consumed, ConsumeError>),
    /// Somebody else holds its counter: to be tried again, waiting.
    Held,
    /// It would spend tokens, whose lock comes before the counter's: to be tried again, alone.
    NeedsTokens,
}

/// How a batch treats what stands in its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// Leave held counters and payments to a later try.
    Swift,
    /// Wait for held counters; leave payments to a later try.
    Patient,
    /// One user's commands, with the user's row locked first: wait, and pay.
    Paying,
}

/// Decides and writes `commands`, in their order. `Err` means that nothing was written, for any of them.
pub async fn run(
    store: &dyn Store,
    randomness: &dyn Randomness,
    commands: &[&ConsumeCommand],
    course: Course,
) -> Result<Vec<Fate>, StoreError> {
    let (meters, meter_of) = distinct_meters(commands);
    let keys: Vec<_> = commands
        .iter()
        .zip(&meter_of)
        .map(|(command, meter)| KeyOfMeter { meter: *meter, key: &command.key })
        .collect();
    let mut work = store.begin(Scope::Counting).await?;
    if course == Course::Paying {
        for meter in &meters {
            work.users().lock(meter.user_id).await?;
        }
    }
    let patience = if course == Course::Swift { Patience::Skip } else { Patience::Wait };
    let locked = lock(&mut *work, &meters, &keys, patience).await?;
    let mut deciding = Deciding::new(locked, course, randomness);
    let fates: Vec<_> = commands
        .iter()
        .zip(&meter_of)
        .enumerate()
        .map(|(place, (command, meter))| deciding.decide(place, command, *meter))
        .collect();
    let Deciding { grants, .. } = deciding;
    if !grants.is_empty() {
        work.usage().record_batch(&grants).await?;
        for grant in grants.iter().filter(|grant| grant.overage > 0) {
            work.usage().spend_tokens(grant.user_id, grant.overage, &grant.decision.feature_id).await?;
        }
    }
    work.commit().await?;
    Ok(fates)
}

/// The meters that the commands name, each once and sorted, so that every batch locks in the same order; and for each
/// command the place of its meter.
fn distinct_meters(commands: &[&ConsumeCommand]) -> (Vec<Meter>, Vec<usize>) {
    let meter = |command: &ConsumeCommand| Meter { user_id: command.user_id, feature_id: command.feature_id.clone() };
    let mut meters: Vec<_> = commands.iter().map(|command| meter(command)).collect();
    meters.sort_unstable();
    meters.dedup();
    let places: HashMap<_, _> = meters.iter().enumerate().map(|(place, meter)| (meter, place)).collect();
    // Every command's meter is in the list that was just made of the commands.
    let meter_of = commands.iter().map(|command| places.get(&meter(command)).copied().unwrap_or_default()).collect();
    (meters, meter_of)
}

/// Locks what is there; makes what is missing and locks again.
async fn lock(
    work: &mut dyn UnitOfWork,
    meters: &[Meter],
    keys: &[KeyOfMeter<'_>],
    patience: Patience,
) -> Result<LockedBatch, StoreError> {
    let locked = work.usage().lock_batch(meters, keys, patience).await?;
    let missing: Vec<_> = meters
        .iter()
        .zip(&locked.meters)
        .filter_map(|(meter, state)| match state {
            MeterState::Uncounted(period) => Some((meter.clone(), *period)),
            _ => None,
        })
        .collect();
    if missing.is_empty() {
        return Ok(locked);
    }
    work.usage().open_counters(&missing).await?;
    work.usage().lock_batch(meters, keys, patience).await
}

/// The state between reading and writing.
struct Deciding<'a> {
    meters: Vec<Decidable>,
    kept: HashMap<usize, KeptOutcome>,
    /// What this batch granted, by user and key: a duplicate in the same batch is answered with the first outcome.
    granted: HashMap<(UserId, IdempotencyKey), KeptOutcome>,
    grants: Vec<Grant>,
    course: Course,
    randomness: &'a dyn Randomness,
}

enum Decidable {
    Ready(FeatureKind, Entitlement),
    Held,
    UnknownUser,
    UnknownFeature,
}

impl<'a> Deciding<'a> {
    fn new(locked: LockedBatch, course: Course, randomness: &'a dyn Randomness) -> Self {
        let decidable = |state| match state {
            MeterState::Locked { kind, entitlement } => Decidable::Ready(kind, entitlement.into_inner()),
            // A counter that was made a moment ago and cannot be locked is being used by somebody else already.
            MeterState::Held | MeterState::Uncounted(_) => Decidable::Held,
            MeterState::UnknownUser => Decidable::UnknownUser,
            MeterState::UnknownFeature => Decidable::UnknownFeature,
        };
        Self {
            meters: locked.meters.into_iter().map(decidable).collect(),
            kept: locked.kept.into_iter().collect(),
            granted: HashMap::new(),
            grants: Vec::new(),
            course,
            randomness,
        }
    }

    fn decide(&mut self, place: usize, command: &ConsumeCommand, meter: usize) -> Fate {
        let first = self.kept.get(&place).or_else(|| self.granted.get(&(command.user_id, command.key.clone())));
        if let Some(first) = first {
            let same = first.decision.feature_id == command.feature_id && first.amount == command.amount;
            let again = || Consumed { decision: first.decision.clone(), replayed: true };
            return Fate::Settled(if same { Ok(again()) } else { Err(ConsumeError::KeyReused) });
        }
        let (kind, entitlement) = match self.meters.get_mut(meter) {
            Some(Decidable::Ready(kind, entitlement)) => (*kind, entitlement),
            Some(Decidable::Held) => return Fate::Held,
            Some(Decidable::UnknownUser) | None => return Fate::Settled(Err(ConsumeError::UnknownUser)),
            Some(Decidable::UnknownFeature) => {
                return Fate::Settled(Err(ConsumeError::UnknownFeature(command.feature_id.clone())));
            }
        };
        if kind == FeatureKind::Boolean && command.amount != 1 {
            return Fate::Settled(Err(ConsumeError::NotMetered(command.feature_id.clone())));
        }
        if self.course != Course::Paying && needs_tokens(entitlement, command.amount) {
            return Fate::NeedsTokens;
        }
        let period = entitlement.period;
        let consumption = consume(entitlement, command.amount);
        if consumption.decision.allowed {
            let outcome = KeptOutcome { amount: command.amount, decision: consumption.decision.clone() };
            self.granted.insert((command.user_id, command.key.clone()), outcome);
            self.grants.push(Grant {
                event_id: self.randomness.new_id(),
                user_id: command.user_id,
                key: command.key.clone(),
                amount: command.amount,
                overage: consumption.overage,
                api_key_id: command.api_key_id,
                decision: consumption.decision.clone(),
                period,
            });
        }
        Fate::Settled(Ok(Consumed { decision: consumption.decision, replayed: false }))
    }
}
