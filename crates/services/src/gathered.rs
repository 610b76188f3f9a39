//! Gathered: questions that many ask at once, put to the database together.
//!
//! The first question goes at once. While it is under way the next ones wait and then go in one fetch, without any timer:
//! the busier it is, the more go together. A second fetch goes beside the first only for a crowd, or where the first takes
//! unusually long: opening a transaction costs as much as reading twenty rows. Who asks for the same thing shares its answer; who asks while a fetch for it is
//! under way already waits for the next one, since a change may have come between.
//!
//! Promises: an answer was fetched after it was asked for. At most so many fetches are under way, each of a bounded
//! number of keys. Nobody waits longer than `PATIENCE`, whatever became of the fetches before theirs. A fetch that finds
//! the database away hands the error to all who wait for it, and to nobody else; after any other error its keys are
//! fetched by halves, so that one that cannot be read fails alone. A fetch runs in a task of its own on the runtime on which
//! this was made: who stops waiting cuts nothing short.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ports::store::StoreError;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

/// How long anybody waits: less than the three seconds in which every answer is promised.
pub const PATIENCE: Duration = Duration::from_millis(2_500);

/// How many may wait at once; whoever comes then is told to come again.
const WAITING_AT_MOST: usize = 10_000;

/// How many keys are worth a fetch beside those that are under way.
const CROWD: usize = 100;

/// A fetch that takes longer holds up nobody who comes then: the next one goes beside it.
const SWIFT: Duration = Duration::from_millis(25);

/// How much one fetch may take on, and how many of them there may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub keys_a_fetch: usize,
    pub fetches: usize,
}

/// What a fetch comes to: a value for each key, in their order.
pub type Fetched<V> = Pin<Box<dyn Future<Output = Result<Vec<V>, StoreError>> + Send>>;

type Fetch<K, V> = dyn Fn(Vec<K>) -> Fetched<V> + Send + Sync;
type Answer<V> = Result<V, StoreError>;
/// Those who wait for the same key.
type Waiting<V> = Vec<oneshot::Sender<Answer<V>>>;

pub struct Gathered<K, V>(Arc<Shared<K, V>>);

struct Shared<K, V> {
    bounds: Bounds,
    fetch: Box<Fetch<K, V>>,
    runtime: Handle,
    state: Mutex<State<K, V>>,
}

struct State<K, V> {
    /// In the order in which they were first asked for.
    order: VecDeque<K>,
    waiting: HashMap<K, Waiting<V>>,
    waiters: usize,
    under_way: usize,
    last_started: Instant,
}

impl<K, V> Gathered<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + 'static,
{
    /// Call it within the runtime on which the fetches are to run.
    pub fn new(bounds: Bounds, fetch: impl Fn(Vec<K>) -> Fetched<V> + Send + Sync + 'static) -> Self {
        let state = State {
            order: VecDeque::new(),
            waiting: HashMap::new(),
            waiters: 0,
            under_way: 0,
            last_started: Instant::now(),
        };
        let (fetch, runtime) = (Box::new(fetch), Handle::current());
        Self(Arc::new(Shared { bounds, fetch, runtime, state: Mutex::new(state) }))
    }

    /// The value of this key, read after this call.
    pub async fn get(&self, key: K) -> Answer<V> {
        let (answer, answered) = oneshot::channel();
        self.0.ask(key, answer)?;
        match timeout(PATIENCE, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(StoreError::Unexpected("a fetch ended without an answer".into())),
            Err(_) => Err(StoreError::Unavailable("nothing was read in time".into())),
        }
    }
}

impl<K, V> Shared<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + 'static,
{
    fn state(&self) -> MutexGuard<'_, State<K, V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(self: &Arc<Self>, key: K, answer: oneshot::Sender<Answer<V>>) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.waiters >= WAITING_AT_MOST {
            state.forget_those_who_left();
        }
        if state.waiters >= WAITING_AT_MOST {
            return Err(StoreError::Unavailable("too many are waiting to read".into()));
        }
        state.add(key, answer);
        self.start(&mut state);
        Ok(())
    }

    /// Sends off what waits, as far as there may be fetches.
    fn start(self: &Arc<Self>, state: &mut State<K, V>) {
        while state.under_way < self.bounds.fetches.max(1) && state.may_start() {
            let (keys, waiting) = state.take(self.bounds.keys_a_fetch.max(1));
            if keys.is_empty() {
                return;
            }
            state.under_way += 1;
            state.last_started = Instant::now();
            self.runtime.spawn(Arc::clone(self).run(keys, waiting));
        }
    }

    async fn run(self: Arc<Self>, keys: Vec<K>, waiting: Vec<Waiting<V>>) {
        // However the fetch ends, by a panic too, the next one may go.
        let _place = Place(Arc::clone(&self));
        let mut parts = vec![(keys, waiting)];
        while let Some((mut keys, mut waiting)) = parts.pop() {
            // Who lost their patience meanwhile wants nothing any more: where everything fails, this ends with them.
            if waiting.iter().flatten().all(oneshot::Sender::is_closed) {
                continue;
            }
            match self.fetch(keys.clone()).await {
                Ok(values) => std::iter::zip(waiting, values).for_each(|(waiting, value)| reply(waiting, &Ok(value))),
                Err(error) if keys.len() > 1 && !matches!(error, StoreError::Unavailable(_)) => {
                    // One of them poisons the others: halved until it stands alone, so that only that one fails.
                    let (others, their_waiting) =
                        (keys.split_off(keys.len() / 2), waiting.split_off(waiting.len() / 2));
                    parts.extend([(others, their_waiting), (keys, waiting)]);
                }
                Err(error) => waiting.into_iter().for_each(|waiting| reply(waiting, &Err(error.clone()))),
            }
        }
    }

    async fn fetch(&self, keys: Vec<K>) -> Result<Vec<V>, StoreError> {
        let count = keys.len();
        let values = (self.fetch)(keys).await?;
        let unfit = || StoreError::Unexpected("a fetch brought another number of values than was asked for".into());
        if values.len() == count { Ok(values) } else { Err(unfit()) }
    }
}

/// Who stopped waiting has an answer already.
fn reply<V: Clone>(waiting: Waiting<V>, answer: &Answer<V>) {
    for waiting in waiting {
        waiting.send(answer.clone()).ok();
    }
}

impl<K: Clone + Eq + Hash, V> State<K, V> {
    fn add(&mut self, key: K, answer: oneshot::Sender<Answer<V>>) {
        self.waiters += 1;
        if let Some(others) = self.waiting.get_mut(&key) {
            others.push(answer);
        } else {
            self.order.push_back(key.clone());
            self.waiting.insert(key, vec![answer]);
        }
    }

    fn may_start(&self) -> bool {
        self.under_way == 0 || self.order.len() >= CROWD || self.last_started.elapsed() > SWIFT
    }

    /// The keys that were asked for first, and who waits for each.
    fn take(&mut self, at_most: usize) -> (Vec<K>, Vec<Waiting<V>>) {
        let mut taken = (Vec::new(), Vec::new());
        while taken.0.len() < at_most
            && let Some(key) = self.order.pop_front()
        {
            let waiting = self.waiting.remove(&key).unwrap_or_default();
            self.waiters -= waiting.len();
            // Behind a fetch that is stuck, those who lost their patience want nothing any more.
            if waiting.iter().any(|waiting| !waiting.is_closed()) {
                taken.0.push(key);
                taken.1.push(waiting);
            }
        }
        taken
    }

    fn forget_those_who_left(&mut self) {
        self.waiting.retain(|_, waiting| {
            waiting.retain(|waiting| !waiting.is_closed());
            !waiting.is_empty()
        });
        let waiting = &self.waiting;
        self.order.retain(|key| waiting.contains_key(key));
        self.waiters = waiting.values().map(Vec::len).sum();
    }
}

/// The place of one fetch. It is given back when the fetch is over, and what waited goes next.
struct Place<K, V>(Arc<Shared<K, V>>)
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + 'static;

impl<K, V> Drop for Place<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + 'static,
{
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.under_way -= 1;
        self.0.start(&mut state);
    }
}

#[cfg(test)]
mod tests;
