//! Postponed items: what failed is left out for a pause that doubles with each failure, so that other items are done.
//! Jobs leave out items that failed; the group commit leaves out users whose rows are busy.
//!
//! Promises: an item that fails repeatedly never keeps the items behind it from being done. Everything is in the memory
//! of one process: another process, or a restart, tries each item anew. Costs no round trip: the list that a run reads
//! leaves out what is postponed. Bounds: at most `ITEMS_MAX` items; beyond that those whose pause ends first are
//! dropped.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The pauses of a job's items.
const JOB_PAUSE_FIRST: Duration = Duration::from_secs(10);
const JOB_PAUSE_MAX: Duration = Duration::from_hours(1);

/// How many items are stored at most.
const ITEMS_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug)]
struct Pause {
    ends_at: Instant,
    length: Duration,
}

#[derive(Debug)]
pub struct PostponedItems<Id> {
    pauses: Mutex<HashMap<Id, Pause>>,
    first_pause: Duration,
    longest_pause: Duration,
}

/// For the items of a job.
impl<Id> Default for PostponedItems<Id> {
    fn default() -> Self {
        Self::new(JOB_PAUSE_FIRST, JOB_PAUSE_MAX)
    }
}

impl<Id> PostponedItems<Id> {
    /// The pause after the first failure, and the length up to which it doubles with each further one.
    pub fn new(first_pause: Duration, longest_pause: Duration) -> Self {
        Self { pauses: Mutex::new(HashMap::new()), first_pause, longest_pause }
    }
}

impl<Id: Copy + Eq + Hash> PostponedItems<Id> {
    /// The items that a run leaves out now.
    pub fn excluded(&self) -> Vec<Id> {
        let now = Instant::now();
        self.pauses().iter().filter(|(_, pause)| pause.ends_at > now).map(|(id, _)| *id).collect()
    }

    /// Whether this item is left out now.
    pub fn excludes(&self, id: Id) -> bool {
        let pauses = self.pauses();
        !pauses.is_empty() && pauses.get(&id).is_some_and(|pause| pause.ends_at > Instant::now())
    }

    /// Notes that an item could not be done. Returns how long it is left out.
    pub fn failed(&self, id: Id) -> Duration {
        let mut pauses = self.pauses();
        let longer = |pause: &Pause| (pause.length * 2).min(self.longest_pause);
        let length = pauses.get(&id).map_or(self.first_pause, longer);
        pauses.insert(id, Pause { ends_at: Instant::now() + length, length });
        if pauses.len() > ITEMS_MAX {
            let first = pauses.iter().min_by_key(|(_, pause)| pause.ends_at).map(|(id, _)| *id);
            first.map(|id| pauses.remove(&id));
        }
        length
    }

    /// Notes that an item is done, by this process or another.
    pub fn done(&self, id: Id) {
        self.pauses().remove(&id);
    }

    fn pauses(&self) -> MutexGuard<'_, HashMap<Id, Pause>> {
        // No step under the lock can leave the map half changed.
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pause_doubles_with_each_failure_up_to_an_hour() {
        let postponed = PostponedItems::default();
        let mut before = Duration::ZERO;
        for _ in 0..12 {
            let pause = postponed.failed(1);
            assert!(
                pause == JOB_PAUSE_FIRST || pause == JOB_PAUSE_MAX || pause == before * 2,
                "{pause:?} after {before:?}"
            );
            assert_eq!(postponed.excluded(), [1]);
            assert!(postponed.excludes(1) && !postponed.excludes(2));
            tokio::time::advance(pause).await;
            assert!(postponed.excluded().is_empty() && !postponed.excludes(1), "its turn has come again");
            before = pause;
        }
        assert_eq!(before, JOB_PAUSE_MAX);
        postponed.done(1);
        assert_eq!(postponed.failed(1), JOB_PAUSE_FIRST, "what was done once begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_items_is_bounded() {
        let postponed = PostponedItems::default();
        for id in 0..ITEMS_MAX + 10 {
            postponed.failed(id);
        }
        assert_eq!(postponed.excluded().len(), ITEMS_MAX);
    }
}
