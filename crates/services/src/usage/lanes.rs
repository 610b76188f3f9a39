//! Lanes: commands are gathered while the batch before them commits, and go together in the next one.
//!
//! No timer and no added wait: an idle lane takes a single command at once. A user's commands always take the same
//! lane, and a lane has one batch in flight. The queue is bounded; what does not fit is refused. One command never
//! stops the others: a batch waits for no row of its users but skips what is locked, and the commands of a locked row go on
//! beside it (`beside`), as those that move tokens do. What else could make it wait is bounded by a fifth of a second
//! (`UsageRepository::wait_for_locks`); then each user's commands go on beside it. A batch that cannot be written is tried
//! again whole, then command by command.

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

use super::batch::{self, Keys};
use super::beside::Beside;
use super::commands::{
    Changed, Command, Course, Demand, Demanded, Fate, HoldAction, HoldCommand, Outcome, UsageError, Whose,
};
use crate::postponed::Postponed;

/// How often a batch is tried as a whole.
const ATTEMPTS: u32 = 3;

/// By when everybody has an answer, whatever the database does.
const PATIENCE: Duration = Duration::from_millis(2_500);

/// For how many batches keys are looked up after one was found to be old.
const WARY_FOR: u32 = 64;

/// How many holds one sweep gives back at most: they take the places of waiting commands.
const HOLDS_SWEPT_AT_ONCE: u64 = 500;

/// How many kept outcomes (of each partition of their table) or ended reservations one sweep removes at most.
const SWEPT_AT_ONCE: u64 = 5_000;

#[derive(Clone, Copy, Debug)]
pub struct LaneSettings {
    /// While one batch waits for the disk, the other is counted; more lanes make smaller batches.
    pub lanes: usize,
    /// How many commands may wait in a lane.
    pub queue: usize,
    /// How many commands go in one batch at most.
    pub batch: usize,
    /// How long an outcome is kept under its key.
    pub keep: TimeDelta,
    /// How long a reservation is kept after its end.
    pub keep_reservations: TimeDelta,
}

/// What the lanes did so far, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneStatistics {
    pub batches: u64,
    pub commands: u64,
    pub waiting: usize,
}

type Answer = Result<Outcome, UsageError>;

struct Waiting {
    command: Command,
    answer: oneshot::Sender<Answer>,
}

struct Shared {
    store: Arc<dyn Store>,
    randomness: Arc<dyn Randomness>,
    memory: Arc<dyn EntitlementCache>,
    beside: Beside,
    postponed: Postponed<HoldId>,
    keep: TimeDelta,
    keep_reservations: TimeDelta,
    batches: AtomicU64,
    commands: AtomicU64,
    unanswered: AtomicUsize,
    /// For how many batches keys are looked up beforehand.
    wary: AtomicU32,
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
        settings: LaneSettings,
    ) -> Self {
        let shared = Arc::new(Shared {
            store,
            randomness,
            memory,
            beside: Beside::new(),
            postponed: Postponed::default(),
            keep: settings.keep,
            keep_reservations: settings.keep_reservations,
            batches: AtomicU64::new(0),
            commands: AtomicU64::new(0),
            unanswered: AtomicUsize::new(0),
            wary: AtomicU32::new(0),
        });
        let lane = |_| {
            let (sender, receiver) = mpsc::channel(settings.queue.max(1));
            tokio::spawn(Arc::clone(&shared).serve(receiver, settings.batch.max(1)));
            sender
        };
        let lanes = (0..settings.lanes.max(1)).map(lane).collect();
        Self { lanes, by_user: RandomState::new(), shared }
    }

    /// Uses or holds, durably: the answer is given after the commit. The work is the lane's, so whoever stops waiting cuts
    /// nothing short: what was begun is ended, and what was not never is.
    pub async fn demand(&self, demand: Demand) -> Result<Demanded, UsageError> {
        demanded(answer(self.submit(Command::Demand(demand)), Instant::now() + PATIENCE).await)
    }

    /// Many at once; the answers stand in the order of the demands.
    pub async fn demand_all(&self, demands: Vec<Demand>) -> Vec<Result<Demanded, UsageError>> {
        let submitted: Vec<_> = demands.into_iter().map(|demand| self.submit(Command::Demand(demand))).collect();
        let deadline = Instant::now() + PATIENCE;
        let mut answers = Vec::with_capacity(submitted.len());
        for waiting in submitted {
            answers.push(demanded(answer(waiting, deadline).await));
        }
        answers
    }

    /// Settles, releases or extends a hold.
    pub async fn change_hold(&self, command: HoldCommand) -> Result<Changed, UsageError> {
        match answer(self.submit(Command::Hold(command)), Instant::now() + PATIENCE).await? {
            Outcome::Changed(changed) => Ok(changed),
            Outcome::Demanded(_) => Err(UsageError::Fault("a hold was answered as a demand".to_owned())),
        }
    }

    fn submit(&self, command: Command) -> Result<oneshot::Receiver<Answer>, UsageError> {
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

    /// A key for a caller who sent none.
    pub fn new_key(&self) -> IdempotencyKey {
        IdempotencyKey::of_id(self.shared.randomness.new_id())
    }

    /// Forgets outcomes that were kept long enough, a bounded number of them; says how many.
    pub async fn sweep_outcomes(&self) -> Result<u64, StoreError> {
        let mut work = self.shared.store.begin(Scope::SERVICE).await?;
        let swept = work.usage().delete_outcomes(self.shared.keep, SWEPT_AT_ONCE).await?;
        work.commit().await?;
        Ok(swept)
    }

    /// Forgets reservations that ended long enough ago, a bounded number of them; says how many.
    pub async fn sweep_reservations(&self) -> Result<u64, StoreError> {
        let mut work = self.shared.store.begin(Scope::SERVICE).await?;
        let swept = work.usage().delete_ended_reservations(self.shared.keep_reservations, SWEPT_AT_ONCE).await?;
        work.commit().await?;
        Ok(swept)
    }

    /// Gives back the holds whose time is over, a bounded number of them; says how many were due.
    pub async fn sweep_holds(&self) -> Result<usize, StoreError> {
        let mut work = self.shared.store.begin(Scope::SERVICE).await?;
        let due = work.usage().list_due_holds(&self.shared.postponed.excluded(), HOLDS_SWEPT_AT_ONCE).await?;
        work.commit().await?;
        let expire = |(hold_id, user_id)| {
            let whose = Whose::Only(user_id);
            (hold_id, self.submit(Command::Hold(HoldCommand { hold_id, whose, action: HoldAction::Expire })))
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

    pub fn statistics(&self) -> LaneStatistics {
        LaneStatistics {
            batches: self.shared.batches.load(Ordering::Relaxed),
            commands: self.shared.commands.load(Ordering::Relaxed),
            waiting: self.shared.unanswered.load(Ordering::Relaxed),
        }
    }

    /// Waits until everything that was taken in is answered, at most `patience`. For the stop, when nothing new comes.
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
                tokio::spawn(Arc::clone(&self).settle_beside(user, vec![waiting], Course::Patient));
            }
            if batch.is_empty() {
                continue;
            }
            if let Err(away) = Arc::clone(&self).settle(batch, Course::Swift).await {
                // Whoever waits behind it has waited as long as it did; another try would take as long again.
                while let Ok(waiting) = queue.try_recv() {
                    self.reply(waiting.answer, Err(away.clone()));
                }
            }
        }
    }

    /// Runs a batch until each of its commands is answered or goes on beside it. `Err` says that the database is away.
    async fn settle(self: Arc<Self>, mut batch: Vec<Waiting>, course: Course) -> Result<(), UsageError> {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.commands.fetch_add(batch.len() as u64, Ordering::Relaxed);
        let commands: Vec<_> = batch.iter().map(|waiting| &waiting.command).collect();
        let error = match self.attempt(&commands, course).await {
            Ok(fates) => {
                if course != Course::Swift
                    && let Some(waiting) = batch.first()
                {
                    self.beside.found_free(waiting.command.lane_key());
                }
                self.answer(batch, fates);
                return Ok(());
            }
            Err(error) => error,
        };
        let away = match &error {
            StoreError::Unavailable(why) | StoreError::InDoubt(why) => Some(UsageError::Away(why.clone())),
            _ => None,
        };
        let is_busy = matches!(error, StoreError::Busy);
        if is_busy && course == Course::Swift {
            // Whose row is locked is not told; each user waits for themselves.
            let beside = batch.into_iter().map(|waiting| (waiting.command.lane_key(), Course::Patient, waiting));
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
        // One of them poisons the others: each for itself, so that only that one fails.
        warn!(%error, commands = batch.len(), "a batch of commands is split");
        self.drop_the_left(&mut batch);
        let mut ended = Ok(());
        for waiting in batch {
            match &ended {
                Ok(()) => ended = Box::pin(Arc::clone(&self).settle(vec![waiting], course)).await,
                Err(away) => self.reply(waiting.answer, Err(away.clone())),
            }
        }
        ended
    }

    /// The whole batch, again where others were in the way: a conflict, or a key that came in meanwhile.
    async fn attempt(&self, commands: &[&Command], course: Course) -> Result<Vec<Fate>, StoreError> {
        let begun = Instant::now();
        let mut keys = if course == Course::Swift { self.trust() } else { Keys::LookedUp };
        for _ in 1..ATTEMPTS {
            match batch::run(&*self.store, &*self.randomness, &*self.memory, commands, course, keys).await {
                Err(StoreError::Conflict | StoreError::Constraint { .. }) if begun.elapsed() < PATIENCE => {
                    if keys == Keys::Trusted {
                        self.wary.store(WARY_FOR, Ordering::Relaxed);
                    }
                    keys = Keys::LookedUp;
                }
                settled => return settled,
            }
        }
        batch::run(&*self.store, &*self.randomness, &*self.memory, commands, course, keys).await
    }

    /// Keys are trusted to be new, but for some batches after one in which one was not: whoever repeats requests often
    /// makes few batches be decided twice.
    fn trust(&self) -> Keys {
        let wary = self.wary.load(Ordering::Relaxed);
        if wary == 0 {
            return Keys::Trusted;
        }
        // Two lanes may take the same number, which makes them wary for one batch longer.
        self.wary.store(wary - 1, Ordering::Relaxed);
        Keys::LookedUp
    }

    fn answer(self: Arc<Self>, batch: Vec<Waiting>, fates: Vec<Fate>) {
        let mut beside = Vec::new();
        for (waiting, fate) in batch.into_iter().zip(fates) {
            match fate {
                Fate::Settled(answer) => self.reply(waiting.answer, answer),
                Fate::Held => beside.push((waiting.command.lane_key(), Course::Patient, waiting)),
                Fate::NeedsTokens(user_id) => beside.push((user_id.0, Course::Paying(user_id), waiting)),
            }
        }
        self.part(beside);
    }

    /// Each user for themselves: rows of several users are locked in no order, and a locked one delays its own user alone.
    fn part(self: Arc<Self>, mut beside: Vec<(Uuid, Course, Waiting)>) {
        while let Some((user, course, _)) = beside.first() {
            let (user, course) = (*user, *course);
            let of_user = beside.extract_if(.., |(other, its, _)| *other == user && *its == course);
            let of_user = of_user.map(|(_, _, waiting)| waiting).collect();
            tokio::spawn(Arc::clone(&self).settle_beside(user, of_user, course));
        }
    }

    async fn settle_beside(self: Arc<Self>, user: Uuid, mut batch: Vec<Waiting>, course: Course) {
        let _place = self.beside.enter(user).await;
        self.drop_the_left(&mut batch);
        if !batch.is_empty() {
            // Each of them is answered; nobody stands in a queue behind it.
            Arc::clone(&self).settle(batch, course).await.ok();
        }
    }

    /// Forgets the commands that nobody waits for any more: they were told that their outcome is unknown.
    fn drop_the_left(&self, batch: &mut Vec<Waiting>) {
        let before = batch.len();
        batch.retain(|waiting| !waiting.answer.is_closed());
        self.unanswered.fetch_sub(before - batch.len(), Ordering::Relaxed);
    }

    fn reply(&self, waiting: oneshot::Sender<Answer>, answer: Answer) {
        self.unanswered.fetch_sub(1, Ordering::Relaxed);
        // Nobody may be waiting any more; what was consumed is consumed.
        waiting.send(answer).ok();
    }
}

/// Whoever gives up waiting leaves: what was not begun by then never is.
async fn answer(submitted: Result<oneshot::Receiver<Answer>, UsageError>, deadline: Instant) -> Answer {
    match tokio::time::timeout_at(deadline, submitted?).await {
        Ok(answer) => answer.unwrap_or_else(|_| Err(UsageError::Fault("a lane ended".to_owned()))),
        Err(_) => Err(UsageError::InDoubt("the counters did not answer in time".to_owned())),
    }
}

fn demanded(answer: Answer) -> Result<Demanded, UsageError> {
    match answer? {
        Outcome::Demanded(demanded) => Ok(demanded),
        Outcome::Changed(_) => Err(UsageError::Fault("a demand was answered as a hold".to_owned())),
    }
}
