//! Group commit: commands are collected while the batch before them commits, and go together in the next one.
//!
//! There is no timer and no added wait: an idle lane takes a single command at once. A lane is a queue with one batch
//! in flight, and a user's commands always take the same lane. The queue is bounded; what does not fit is refused. One
//! command never stops the others: a batch skips locked rows instead of waiting for them, and their commands go on
//! beside it (`beside`), as do those that move tokens. Any other wait of a batch is bounded by a fifth of a second
//! (`UsageRepository::wait_for_locks`); then each user's commands go on beside it. A batch that cannot be written is
//! retried whole, then command by command.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use domain::idempotency::IdempotencyKey;
use domain::usage::HoldId;
use ports::entitlements::EntitlementCache;
use ports::randomness::Randomness;
use ports::store::{Scope, Store, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

use super::batch::{self, KeyLookup};
use super::beside::BusyUsers;
use super::commands::{
    CommandOutcome, CommandResult, ConsumeCommand, ConsumeOutcome, HoldAction, HoldChanged, HoldCommand, HoldOwner,
    LockMode, UsageCommand, UsageError,
};
use crate::postponed::PostponedCalls;

/// How often a batch is tried as a whole.
const ATTEMPTS: u32 = 3;

/// Every caller has an answer within this time, whatever the database does.
const PATIENCE: Duration = Duration::from_millis(2_500);

/// For how many batches idempotency keys are looked up after one was found to be old.
const LOOKUP_BATCHES: u32 = 64;

/// How many reservations one sweep releases at most: they take the places of waiting commands.
const HOLDS_SWEPT_AT_ONCE: u64 = 500;

/// How many stored outcomes (of each partition of their table) or ended reservations one sweep deletes at most.
const SWEPT_AT_ONCE: u64 = 5_000;

#[derive(Clone, Copy, Debug)]
pub struct GroupCommitSettings {
    /// While one batch waits for the disk, another lane decides the next; more lanes make smaller batches.
    pub lanes: usize,
    /// How many commands may wait in a lane.
    pub queue: usize,
    /// How many commands go in one batch at most.
    pub batch: usize,
    /// How long an outcome is kept under its idempotency key.
    pub keep: TimeDelta,
    /// How long a reservation is kept after its end.
    pub keep_reservations: TimeDelta,
}

/// The totals of the group commit so far, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupCommitStatistics {
    pub batches: u64,
    pub commands: u64,
    pub waiting: usize,
}

type Answer = Result<CommandOutcome, UsageError>;

struct Waiting {
    command: UsageCommand,
    answer: oneshot::Sender<Answer>,
}

struct Shared {
    store: Arc<dyn Store>,
    randomness: Arc<dyn Randomness>,
    memory: Arc<dyn EntitlementCache>,
    beside: BusyUsers,
    postponed: PostponedCalls<HoldId>,
    keep: TimeDelta,
    keep_reservations: TimeDelta,
    batches: AtomicU64,
    commands: AtomicU64,
    unanswered: AtomicUsize,
    /// For how many more batches idempotency keys are looked up beforehand.
    lookup_batches_left: AtomicU32,
}

pub struct UsageService {
    lanes: Vec<mpsc::Sender<Waiting>>,
    by_user: RandomState,
    shared: Arc<Shared>,
}

impl UsageService {
    /// Starts the lanes on the current runtime. They end with the service.
    pub fn start(
        store: Arc<dyn Store>,
        randomness: Arc<dyn Randomness>,
        memory: Arc<dyn EntitlementCache>,
        settings: GroupCommitSettings,
    ) -> Self {
        let shared = Arc::new(Shared {
            store,
            randomness,
            memory,
            beside: BusyUsers::new(),
            postponed: PostponedCalls::default(),
            keep: settings.keep,
            keep_reservations: settings.keep_reservations,
            batches: AtomicU64::new(0),
            commands: AtomicU64::new(0),
            unanswered: AtomicUsize::new(0),
            lookup_batches_left: AtomicU32::new(0),
        });
        let lane = |_| {
            let (sender, receiver) = mpsc::channel(settings.queue.max(1));
            tokio::spawn(Arc::clone(&shared).serve(receiver, settings.batch.max(1)));
            sender
        };
        let lanes = (0..settings.lanes.max(1)).map(lane).collect();
        Self { lanes, by_user: RandomState::new(), shared }
    }

    /// Uses or reserves, durably: the answer is given after the commit. The lane does the work, so a caller that stops
    /// waiting interrupts nothing: a command that was begun is completed, and one that was not never is.
    pub async fn demand(&self, demand: ConsumeCommand) -> Result<ConsumeOutcome, UsageError> {
        demanded(answer(self.submit(UsageCommand::Consume(demand)), Instant::now() + PATIENCE).await)
    }

    /// Many at once; the answers are in the order of `demands`.
    pub async fn demand_all(&self, demands: Vec<ConsumeCommand>) -> Vec<Result<ConsumeOutcome, UsageError>> {
        let submitted: Vec<_> = demands.into_iter().map(|demand| self.submit(UsageCommand::Consume(demand))).collect();
        let deadline = Instant::now() + PATIENCE;
        let mut answers = Vec::with_capacity(submitted.len());
        for waiting in submitted {
            answers.push(demanded(answer(waiting, deadline).await));
        }
        answers
    }

    /// Settles, releases or extends a reservation.
    pub async fn change_hold(&self, command: HoldCommand) -> Result<HoldChanged, UsageError> {
        match answer(self.submit(UsageCommand::Hold(command)), Instant::now() + PATIENCE).await? {
            CommandOutcome::Changed(changed) => Ok(changed),
            CommandOutcome::Consumed(_) => Err(UsageError::Fault("a hold was answered as a demand".to_owned())),
        }
    }

    fn submit(&self, command: UsageCommand) -> Result<oneshot::Receiver<Answer>, UsageError> {
        let (answer, receiver) = oneshot::channel();
        let lane = usize::try_from(self.by_user.hash_one(command.lane_key())).unwrap_or(usize::MAX) % self.lanes.len();
        let lane = self.lanes.get(lane).ok_or(UsageError::QueueFull)?;
        self.shared.unanswered.fetch_add(1, Ordering::Relaxed);
        lane.try_send(Waiting { command, answer }).map_err(|_| {
            self.shared.unanswered.fetch_sub(1, Ordering::Relaxed);
            UsageError::QueueFull
        })?;
        Ok(receiver)
    }

    /// An idempotency key for a caller that sent none.
    pub fn new_key(&self) -> IdempotencyKey {
        IdempotencyKey::of_id(self.shared.randomness.new_id())
    }

    /// Deletes outcomes that were kept long enough, a bounded number of them; returns how many.
    pub async fn sweep_outcomes(&self) -> Result<u64, StoreError> {
        let mut work = self.shared.store.begin(Scope::SERVICE).await?;
        let swept = work.usage().delete_outcomes(self.shared.keep, SWEPT_AT_ONCE).await?;
        work.commit().await?;
        Ok(swept)
    }

    /// Deletes reservations that ended long enough ago, a bounded number of them; returns how many.
    pub async fn sweep_reservations(&self) -> Result<u64, StoreError> {
        let mut work = self.shared.store.begin(Scope::SERVICE).await?;
        let swept = work.usage().delete_ended_reservations(self.shared.keep_reservations, SWEPT_AT_ONCE).await?;
        work.commit().await?;
        Ok(swept)
    }

    /// Releases the reservations whose time is over, a bounded number of them; returns how many.
    pub async fn sweep_holds(&self) -> Result<usize, StoreError> {
        let mut work = self.shared.store.begin(Scope::SERVICE).await?;
        let due = work.usage().list_due_holds(&self.shared.postponed.excluded(), HOLDS_SWEPT_AT_ONCE).await?;
        work.commit().await?;
        let expire = |(hold_id, user_id)| {
            let whose = HoldOwner::User(user_id);
            (hold_id, self.submit(UsageCommand::Hold(HoldCommand { hold_id, whose, action: HoldAction::Expire })))
        };
        let submitted: Vec<_> = due.into_iter().map(expire).collect();
        let deadline = Instant::now() + PATIENCE;
        let mut swept = 0;
        for (hold_id, waiting) in submitted {
            match answer(waiting, deadline).await {
                Ok(_) => {
                    self.shared.postponed.done(hold_id);
                    swept += 1;
                }
                Err(error) => {
                    let pause = self.shared.postponed.failed(hold_id);
                    warn!(%error, hold = %hold_id.0, ?pause, "a hold whose time is over could not be given back");
                }
            }
        }
        Ok(swept)
    }

    pub fn statistics(&self) -> GroupCommitStatistics {
        GroupCommitStatistics {
            batches: self.shared.batches.load(Ordering::Relaxed),
            commands: self.shared.commands.load(Ordering::Relaxed),
            waiting: self.shared.unanswered.load(Ordering::Relaxed),
        }
    }

    /// Waits until every accepted command is answered, at most `patience`. For shutdown, when no new ones arrive.
    pub async fn drain(&self, patience: Duration) {
        let drained = async {
            while self.shared.unanswered.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(patience, drained).await.is_err() {
            warn!("consumptions were still unanswered at the stop; those that were not committed did not happen");
        }
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, mut queue: mpsc::Receiver<Waiting>, batch_at_most: usize) {
        let mut gathered = Vec::with_capacity(batch_at_most);
        while queue.recv_many(&mut gathered, batch_at_most).await > 0 {
            let mut batch = std::mem::replace(&mut gathered, Vec::with_capacity(batch_at_most));
            self.drop_the_left(&mut batch);
            let is_busy = |waiting: &mut Waiting| self.beside.is_busy(waiting.command.lane_key());
            for waiting in batch.extract_if(.., is_busy).collect::<Vec<_>>() {
                let user = waiting.command.lane_key();
                tokio::spawn(Arc::clone(&self).settle_beside(user, vec![waiting], LockMode::Wait));
            }
            if batch.is_empty() {
                continue;
            }
            if let Err(away) = Arc::clone(&self).settle(batch, LockMode::SkipLocked).await {
                // The queued commands have waited as long as this batch; another try would take as long again.
                while let Ok(waiting) = queue.try_recv() {
                    self.reply(waiting.answer, Err(away.clone()));
                }
            }
        }
    }

    /// Runs a batch until each of its commands is answered or goes on beside it. `Err` means that the database is away.
    async fn settle(self: Arc<Self>, mut batch: Vec<Waiting>, lock_mode: LockMode) -> Result<(), UsageError> {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.commands.fetch_add(batch.len() as u64, Ordering::Relaxed);
        let commands: Vec<_> = batch.iter().map(|waiting| &waiting.command).collect();
        let error = match self.attempt(&commands, lock_mode).await {
            Ok(results) => {
                if lock_mode != LockMode::SkipLocked
                    && let Some(waiting) = batch.first()
                {
                    self.beside.found_free(waiting.command.lane_key());
                }
                self.answer(batch, results);
                return Ok(());
            }
            Err(error) => error,
        };
        let away = match &error {
            StoreError::Unavailable(why) | StoreError::InDoubt(why) => Some(UsageError::Away(why.clone())),
            _ => None,
        };
        let is_busy = matches!(error, StoreError::Busy);
        if is_busy && lock_mode == LockMode::SkipLocked {
            // Postgres does not say whose row is locked, so each user's commands wait in a batch of their own.
            let beside = batch.into_iter().map(|waiting| (waiting.command.lane_key(), LockMode::Wait, waiting));
            self.part(beside.collect());
            return Ok(());
        }
        if batch.len() == 1 || away.is_some() || is_busy {
            if is_busy && let Some(waiting) = batch.first() {
                self.beside.found_locked(waiting.command.lane_key());
            }
            let error = UsageError::from(error);
            for waiting in batch {
                self.reply(waiting.answer, Err(error.clone()));
            }
            return away.map_or(Ok(()), Err);
        }
        // One command makes the others fail: each is run alone, so that only that one fails.
        warn!(%error, commands = batch.len(), "a batch of commands is split");
        self.drop_the_left(&mut batch);
        let mut ended = Ok(());
        for waiting in batch {
            match &ended {
                Ok(()) => ended = Box::pin(Arc::clone(&self).settle(vec![waiting], lock_mode)).await,
                Err(away) => self.reply(waiting.answer, Err(away.clone())),
            }
        }
        ended
    }

    /// Tries the whole batch, again after a conflict or where an idempotency key was stored meanwhile.
    async fn attempt(&self, commands: &[&UsageCommand], lock_mode: LockMode) -> Result<Vec<CommandResult>, StoreError> {
        let begun = Instant::now();
        let mut keys = if lock_mode == LockMode::SkipLocked { self.trust() } else { KeyLookup::UnderLocks };
        for _ in 1..ATTEMPTS {
            match batch::run(&*self.store, &*self.randomness, &*self.memory, commands, lock_mode, keys).await {
                Err(StoreError::Conflict | StoreError::Constraint { .. }) if begun.elapsed() < PATIENCE => {
                    if keys == KeyLookup::Optimistic {
                        self.lookup_batches_left.store(LOOKUP_BATCHES, Ordering::Relaxed);
                    }
                    keys = KeyLookup::UnderLocks;
                }
                settled => return settled,
            }
        }
        batch::run(&*self.store, &*self.randomness, &*self.memory, commands, lock_mode, keys).await
    }

    /// Idempotency keys are assumed to be new, except for some batches after one in which a key was not: so repeated
    /// requests cause few batches to be decided twice.
    fn trust(&self) -> KeyLookup {
        let lookup_batches_left = self.lookup_batches_left.load(Ordering::Relaxed);
        if lookup_batches_left == 0 {
            return KeyLookup::Optimistic;
        }
        // Two lanes may take the same number. Then the lookups last one batch longer.
        self.lookup_batches_left.store(lookup_batches_left - 1, Ordering::Relaxed);
        KeyLookup::UnderLocks
    }

    fn answer(self: Arc<Self>, batch: Vec<Waiting>, results: Vec<CommandResult>) {
        let mut beside = Vec::new();
        for (waiting, result) in batch.into_iter().zip(results) {
            match result {
                CommandResult::Settled(answer) => self.reply(waiting.answer, answer),
                CommandResult::Busy => beside.push((waiting.command.lane_key(), LockMode::Wait, waiting)),
                CommandResult::NeedsTokens(user) => beside.push((user.0, LockMode::WaitAndSpend(user), waiting)),
            }
        }
        self.part(beside);
    }

    /// Runs each user's commands apart: rows of several users are locked in no order, and a locked one delays its own
    /// user alone.
    fn part(self: Arc<Self>, mut beside: Vec<(Uuid, LockMode, Waiting)>) {
        while let Some((user, lock_mode, _)) = beside.first() {
            let (user, lock_mode) = (*user, *lock_mode);
            let of_user = beside.extract_if(.., |(other, its, _)| *other == user && *its == lock_mode);
            let of_user = of_user.map(|(_, _, waiting)| waiting).collect();
            tokio::spawn(Arc::clone(&self).settle_beside(user, of_user, lock_mode));
        }
    }

    async fn settle_beside(self: Arc<Self>, user: Uuid, mut batch: Vec<Waiting>, lock_mode: LockMode) {
        let _place = self.beside.enter(user).await;
        self.drop_the_left(&mut batch);
        if !batch.is_empty() {
            // Each of them is answered; no queue waits behind it.
            Arc::clone(&self).settle(batch, lock_mode).await.ok();
        }
    }

    /// Drops the commands whose callers no longer wait: they got the error that their outcome is unknown.
    fn drop_the_left(&self, batch: &mut Vec<Waiting>) {
        let before = batch.len();
        batch.retain(|waiting| !waiting.answer.is_closed());
        self.unanswered.fetch_sub(before - batch.len(), Ordering::Relaxed);
    }

    fn reply(&self, waiting: oneshot::Sender<Answer>, answer: Answer) {
        self.unanswered.fetch_sub(1, Ordering::Relaxed);
        // The caller may be gone; what was consumed is consumed.
        waiting.send(answer).ok();
    }
}

/// Waits until `deadline`. A command that was not begun by then never is, since its caller is gone.
async fn answer(submitted: Result<oneshot::Receiver<Answer>, UsageError>, deadline: Instant) -> Answer {
    match tokio::time::timeout_at(deadline, submitted?).await {
        Ok(answer) => answer.unwrap_or_else(|_| Err(UsageError::Fault("a lane ended".to_owned()))),
        Err(_) => Err(UsageError::InDoubt("the counters did not answer in time".to_owned())),
    }
}

fn demanded(answer: Answer) -> Result<ConsumeOutcome, UsageError> {
    match answer? {
        CommandOutcome::Consumed(demanded) => Ok(demanded),
        CommandOutcome::Changed(_) => Err(UsageError::Fault("a demand was answered as a hold".to_owned())),
    }
}
