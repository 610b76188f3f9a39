//! Group commit: commands are collected while the batch before them commits, and go together in the next one.
//!
//! There is no timer and no added wait: an idle lane takes a single command at once. A lane is a queue with one batch
//! in flight, and a user's commands always take the same lane. The queue is bounded; what does not fit is refused. One
//! command never stops the others: a batch skips locked rows instead of waiting for them, and their commands go on
//! beside it (`beside`), as do those that move tokens. Any other wait of a batch is bounded by a fifth of a second
//! (`UnitOfWork::wait_for_locks`); then each user's commands go on beside it. A batch that cannot be written is
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
use ports::store::{Store, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

use super::batch::{self, KeyLookup};
use super::beside::BusyUsers;
use super::commands::{CommitError, ConsumeCommand, LockMode, UsageCommand};
use super::decider::BatchCommand;
use super::queued_commands::{CommandReply, QueueEntry, QueuedCommand};
use crate::postponed::PostponedItems;

/// How often a batch is tried as a whole.
const ATTEMPTS: u32 = 3;

/// Every caller has an answer within this time, whatever the database does.
pub(super) const PATIENCE: Duration = Duration::from_millis(2_500);

/// For how many batches idempotency keys are looked up after one was found to be old.
const LOOKUP_BATCHES: u32 = 64;

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

pub(super) struct Shared {
    pub store: Arc<dyn Store>,
    randomness: Arc<dyn Randomness>,
    cache: Arc<dyn EntitlementCache>,
    busy_users: BusyUsers,
    /// Reservations that a sweep could not release.
    pub postponed: PostponedItems<HoldId>,
    pub keep: TimeDelta,
    pub keep_reservations: TimeDelta,
    batches: AtomicU64,
    commands: AtomicU64,
    unanswered: AtomicUsize,
    /// For how many more batches idempotency keys are looked up beforehand.
    lookup_batches_left: AtomicU32,
}

pub struct UsageService {
    lanes: Vec<mpsc::Sender<QueuedCommand>>,
    by_user: RandomState,
    pub(super) shared: Arc<Shared>,
}

impl UsageService {
    /// Starts the lanes on the current runtime. They end with the service.
    pub fn start(
        store: Arc<dyn Store>,
        randomness: Arc<dyn Randomness>,
        cache: Arc<dyn EntitlementCache>,
        settings: GroupCommitSettings,
    ) -> Self {
        let shared = Arc::new(Shared {
            store,
            randomness,
            cache,
            busy_users: BusyUsers::new(),
            postponed: PostponedItems::default(),
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

    /// Executes a command, durably: the answer is given after the commit. The lane does the work, so a caller that
    /// stops waiting interrupts nothing: a command that was begun is completed, and one that was not never is.
    pub async fn execute<C>(&self, command: C) -> CommandReply<C>
    where
        C: BatchCommand,
        QueuedCommand: From<QueueEntry<C>>,
    {
        answer::<C>(self.submit(command), Instant::now() + PATIENCE).await
    }

    /// Many at once; the answers are in the order of `commands`.
    pub async fn consume_all(&self, commands: Vec<ConsumeCommand>) -> Vec<CommandReply<ConsumeCommand>> {
        let submitted: Vec<_> = commands.into_iter().map(|command| self.submit(command)).collect();
        let deadline = Instant::now() + PATIENCE;
        let mut answers = Vec::with_capacity(submitted.len());
        for waiting in submitted {
            answers.push(answer::<ConsumeCommand>(waiting, deadline).await);
        }
        answers
    }

    pub(super) fn submit<C>(&self, command: C) -> Result<oneshot::Receiver<CommandReply<C>>, CommitError>
    where
        C: BatchCommand,
        QueuedCommand: From<QueueEntry<C>>,
    {
        let lane = usize::try_from(self.by_user.hash_one(command.lane_key())).unwrap_or(usize::MAX) % self.lanes.len();
        let lane = self.lanes.get(lane).ok_or(CommitError::QueueFull)?;
        let (entry, receiver) = QueueEntry::new(command);
        self.shared.unanswered.fetch_add(1, Ordering::Relaxed);
        lane.try_send(entry.into()).map_err(|_| {
            self.shared.unanswered.fetch_sub(1, Ordering::Relaxed);
            CommitError::QueueFull
        })?;
        Ok(receiver)
    }

    /// An idempotency key for a caller that sent none.
    pub fn new_key(&self) -> IdempotencyKey {
        IdempotencyKey::of_id(self.shared.randomness.new_id())
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
    async fn serve(self: Arc<Self>, mut queue: mpsc::Receiver<QueuedCommand>, batch_max: usize) {
        let mut received = Vec::with_capacity(batch_max);
        while queue.recv_many(&mut received, batch_max).await > 0 {
            let mut batch = std::mem::replace(&mut received, Vec::with_capacity(batch_max));
            self.drop_abandoned(&mut batch);
            let is_busy = |command: &mut QueuedCommand| self.busy_users.is_busy(command.lane_key());
            for command in batch.extract_if(.., is_busy).collect::<Vec<_>>() {
                let user = command.lane_key();
                tokio::spawn(Arc::clone(&self).run_beside(user, vec![command], LockMode::Wait));
            }
            if batch.is_empty() {
                continue;
            }
            if let Err(away) = Arc::clone(&self).run(batch, LockMode::SkipLocked).await {
                // The queued commands have waited as long as this batch; another try would take as long again.
                while let Ok(command) = queue.try_recv() {
                    self.fail(command, away.clone());
                }
            }
        }
    }

    /// Runs a batch until each of its commands is answered or goes on beside it. `Err` means that the database is away.
    async fn run(self: Arc<Self>, mut batch: Vec<QueuedCommand>, lock_mode: LockMode) -> Result<(), CommitError> {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.commands.fetch_add(batch.len() as u64, Ordering::Relaxed);
        let Err(error) = self.attempt(&mut batch, lock_mode).await else {
            if lock_mode != LockMode::SkipLocked
                && let Some(command) = batch.first()
            {
                self.busy_users.found_free(command.lane_key());
            }
            self.answer(batch);
            return Ok(());
        };
        let away = match &error {
            StoreError::Unavailable(why) | StoreError::InDoubt(why) => Some(CommitError::Away(why.clone())),
            _ => None,
        };
        let is_busy = matches!(error, StoreError::Busy);
        if is_busy && lock_mode == LockMode::SkipLocked {
            // Postgres does not say whose row is locked, so each user's commands wait in a batch of their own.
            let beside = batch.into_iter().map(|command| (command.lane_key(), LockMode::Wait, command));
            self.split_by_user(beside.collect());
            return Ok(());
        }
        if batch.len() == 1 || away.is_some() || is_busy {
            if is_busy && let Some(command) = batch.first() {
                self.busy_users.found_locked(command.lane_key());
            }
            let error = CommitError::from(error);
            for command in batch {
                self.fail(command, error.clone());
            }
            return away.map_or(Ok(()), Err);
        }
        // One command makes the others fail: each is run alone, so that only that one fails.
        warn!(%error, commands = batch.len(), "a batch of commands is split");
        self.drop_abandoned(&mut batch);
        let mut ended = Ok(());
        for command in batch {
            match &ended {
                Ok(()) => ended = Box::pin(Arc::clone(&self).run(vec![command], lock_mode)).await,
                Err(away) => self.fail(command, away.clone()),
            }
        }
        ended
    }

    /// Tries the whole batch, again after a conflict or where an idempotency key was stored meanwhile.
    async fn attempt(&self, batch: &mut [QueuedCommand], lock_mode: LockMode) -> Result<(), StoreError> {
        let begun = Instant::now();
        let mut key_lookup =
            if lock_mode == LockMode::SkipLocked { self.next_key_lookup() } else { KeyLookup::UnderLocks };
        for _ in 1..ATTEMPTS {
            match batch::run(&*self.store, &*self.randomness, &*self.cache, batch, lock_mode, key_lookup).await {
                Err(StoreError::Conflict | StoreError::Constraint { .. }) if begun.elapsed() < PATIENCE => {
                    if key_lookup == KeyLookup::Optimistic {
                        self.lookup_batches_left.store(LOOKUP_BATCHES, Ordering::Relaxed);
                    }
                    key_lookup = KeyLookup::UnderLocks;
                }
                ended => return ended,
            }
        }
        batch::run(&*self.store, &*self.randomness, &*self.cache, batch, lock_mode, key_lookup).await
    }

    /// Idempotency keys are assumed to be new, except for some batches after one in which a key was not: so repeated
    /// requests cause few batches to be decided twice.
    fn next_key_lookup(&self) -> KeyLookup {
        let lookup_batches_left = self.lookup_batches_left.load(Ordering::Relaxed);
        if lookup_batches_left == 0 {
            return KeyLookup::Optimistic;
        }
        // Two lanes may take the same number. Then the lookups last one batch longer.
        self.lookup_batches_left.store(lookup_batches_left - 1, Ordering::Relaxed);
        KeyLookup::UnderLocks
    }

    /// Answers the callers of a committed batch. Commands without an outcome go on beside the batches.
    fn answer(self: Arc<Self>, batch: Vec<QueuedCommand>) {
        let mut beside = Vec::new();
        for mut command in batch {
            match command.entry_mut().answer() {
                Some((user, lock_mode)) => beside.push((user, lock_mode, command)),
                None => self.count_answered(1),
            }
        }
        self.split_by_user(beside);
    }

    /// Runs each user's commands apart: rows of several users are locked in no order, and a locked one delays its own
    /// user alone.
    fn split_by_user(self: Arc<Self>, mut beside: Vec<(Uuid, LockMode, QueuedCommand)>) {
        while let Some((user, lock_mode, _)) = beside.first() {
            let (user, lock_mode) = (*user, *lock_mode);
            let of_user = beside.extract_if(.., |(other, its, _)| *other == user && *its == lock_mode);
            let of_user = of_user.map(|(_, _, command)| command).collect();
            tokio::spawn(Arc::clone(&self).run_beside(user, of_user, lock_mode));
        }
    }

    async fn run_beside(self: Arc<Self>, user: Uuid, mut batch: Vec<QueuedCommand>, lock_mode: LockMode) {
        let _turn = self.busy_users.enter(user).await;
        self.drop_abandoned(&mut batch);
        if !batch.is_empty() {
            // Each of them is answered; no queue waits behind it.
            Arc::clone(&self).run(batch, lock_mode).await.ok();
        }
    }

    /// Drops the commands whose callers no longer wait: they got the error that their outcome is unknown.
    fn drop_abandoned(&self, batch: &mut Vec<QueuedCommand>) {
        let before = batch.len();
        batch.retain(|command| !command.entry().is_abandoned());
        self.count_answered(before - batch.len());
    }

    fn fail(&self, mut command: QueuedCommand, error: CommitError) {
        self.count_answered(1);
        command.entry_mut().fail(error);
    }

    fn count_answered(&self, commands: usize) {
        self.unanswered.fetch_sub(commands, Ordering::Relaxed);
    }
}

/// Waits until `deadline`. A command that was not begun by then never is, since its caller is gone.
pub(super) async fn answer<C: UsageCommand>(
    submitted: Result<oneshot::Receiver<CommandReply<C>>, CommitError>,
    deadline: Instant,
) -> CommandReply<C> {
    let error = match tokio::time::timeout_at(deadline, submitted?).await {
        Ok(Ok(answer)) => return answer,
        Ok(Err(_)) => CommitError::Fault("a lane ended".to_owned()),
        Err(_) => CommitError::InDoubt("the counters did not answer in time".to_owned()),
    };
    Err(error.into())
}
