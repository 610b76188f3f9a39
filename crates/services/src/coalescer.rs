//! Coalescer: reads that many callers request at once are put to the database together.
//!
//! The first key is fetched at once. While it is under way the next ones wait and then go in one fetch, without any
//! timer: the higher the load, the more go together. A second fetch runs beside the first only for `CROWD` keys, or
//! where the first takes longer than `SWIFT`: opening a transaction costs as much as reading twenty rows. Callers that
//! request the same key share its answer; a caller that requests it while a fetch for it is already under way waits for
//! the next one, since a change may have come between.
//!
//! Promises: a value was fetched after it was requested. The number of fetches under way is bounded, and so are the
//! keys of each. No caller waits longer than `PATIENCE`, whatever became of earlier fetches. A fetch that finds the
//! database away returns the error to its own callers only; after any other error its keys are fetched by halves, so
//! that one that cannot be read fails alone. A fetch runs in a task of its own on the runtime on which this was made: a
//! caller that stops waiting interrupts nothing.

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

/// How long a caller waits at most: less than the three seconds in which every answer is promised.
pub const PATIENCE: Duration = Duration::from_millis(2_500);

/// How many callers may wait at once; further ones get an error.
const WAITING_AT_MOST: usize = 10_000;

/// How many waiting keys justify a fetch beside those that are under way.
const CROWD: usize = 100;

/// A fetch that takes longer does not delay later keys: the next one runs beside it.
const SWIFT: Duration = Duration::from_millis(25);

/// How many keys one fetch may have, and how many fetches may be under way.
#[derive(Clone, Copy, Debug)]
pub struct CoalescerLimits {
    pub keys_a_fetch: usize,
    pub fetches: usize,
}

/// The result of a fetch: a value for each key, in their order.
pub type FetchedValues<V> = Pin<Box<dyn Future<Output = Result<Vec<V>, StoreError>> + Send>>;

type Fetch<K, V> = dyn Fn(Vec<K>) -> FetchedValues<V> + Send + Sync;
type Answer<V> = Result<V, StoreError>;
/// The callers that wait for the same key.
type Waiting<V> = Vec<oneshot::Sender<Answer<V>>>;

pub struct Coalescer<K, V>(Arc<Shared<K, V>>);

struct Shared<K, V> {
    bounds: CoalescerLimits,
    fetch: Box<Fetch<K, V>>,
    runtime: Handle,
    state: Mutex<State<K, V>>,
}

struct State<K, V> {
    /// In the order in which they were first requested.
    order: VecDeque<K>,
    waiting: HashMap<K, Waiting<V>>,
    waiters: usize,
    under_way: usize,
    last_started: Instant,
}

impl<K, V> Coalescer<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + 'static,
{
    /// Call it within the runtime on which the fetches are to run.
    pub fn new(bounds: CoalescerLimits, fetch: impl Fn(Vec<K>) -> FetchedValues<V> + Send + Sync + 'static) -> Self {
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

    /// Starts fetches for what waits, as far as the limits allow.
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
        // However the fetch ends, by a panic too, the next one may start.
        let _place = Place(Arc::clone(&self));
        let mut parts = vec![(keys, waiting)];
        while let Some((mut keys, mut waiting)) = parts.pop() {
            // Callers that timed out need no value: where everything fails, this ends with them.
            if waiting.iter().flatten().all(oneshot::Sender::is_closed) {
                continue;
            }
            match self.fetch(keys.clone()).await {
                Ok(values) => std::iter::zip(waiting, values).for_each(|(waiting, value)| reply(waiting, &Ok(value))),
                Err(error) if keys.len() > 1 && !matches!(error, StoreError::Unavailable(_)) => {
                    // One key makes the others fail: halved until it is alone, so that only that one fails.
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

/// A caller that stopped waiting has an error already.
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

    /// The keys that were requested first, and the callers that wait for each.
    fn take(&mut self, at_most: usize) -> (Vec<K>, Vec<Waiting<V>>) {
        let mut taken = (Vec::new(), Vec::new());
        while taken.0.len() < at_most
            && let Some(key) = self.order.pop_front()
        {
            let waiting = self.waiting.remove(&key).unwrap_or_default();
            self.waiters -= waiting.len();
            // After a stuck fetch, keys whose callers have all timed out are skipped.
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

/// The slot of one fetch. It is freed when the fetch is over, and what waits is fetched next.
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
