//! Postponed work: items of a job that failed, each with a pause that doubles, so that a run takes others instead.
//!
//! Promises: an item that fails repeatedly never keeps the items behind it from being done. Everything is in the memory
//! of one process: another process, or a restart, tries each item anew. Costs no round trip: the list that a run reads
//! leaves out what is postponed. Bounds: at most `KEPT_MAX` items; beyond that those whose pause ends first are
//! dropped.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The pause after the first failure. It doubles with each further one, up to `PAUSE_MAX`.
const PAUSE_MIN: Duration = Duration::from_secs(10);
const PAUSE_MAX: Duration = Duration::from_hours(1);

/// How many items are stored at most.
const KEPT_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug)]
struct Pause {
    ends_at: Instant,
    length: Duration,
}

/// The items of one job that failed.
#[derive(Debug)]
pub struct PostponedCalls<Id> {
    pauses: Mutex<HashMap<Id, Pause>>,
}

impl<Id> Default for PostponedCalls<Id> {
    fn default() -> Self {
        Self { pauses: Mutex::new(HashMap::new()) }
    }
}

impl<Id: Copy + Eq + Hash> PostponedCalls<Id> {
    /// The items that a run leaves out now.
    pub fn excluded(&self) -> Vec<Id> {
        let now = Instant::now();
        self.pauses().iter().filter(|(_, pause)| pause.ends_at > now).map(|(id, _)| *id).collect()
    }

    /// Notes that an item could not be done. Returns how long it is left out.
    pub fn failed(&self, id: Id) -> Duration {
        let mut pauses = self.pauses();
        let length = pauses.get(&id).map_or(PAUSE_MIN, |pause| (pause.length * 2).min(PAUSE_MAX));
        pauses.insert(id, Pause { ends_at: Instant::now() + length, length });
        if pauses.len() > KEPT_MAX {
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
        let postponed = PostponedCalls::default();
        let mut before = Duration::ZERO;
        for _ in 0..12 {
            let pause = postponed.failed(1);
            assert!(pause == PAUSE_MIN || pause == PAUSE_MAX || pause == before * 2, "{pause:?} after {before:?}");
            assert_eq!(postponed.excluded(), [1]);
            tokio::time::advance(pause).await;
            assert!(postponed.excluded().is_empty(), "its turn has come again");
            before = pause;
        }
        assert_eq!(before, PAUSE_MAX);
        postponed.done(1);
        assert_eq!(postponed.failed(1), PAUSE_MIN, "what was done once begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_items_is_bounded() {
        let postponed = PostponedCalls::default();
        for id in 0..KEPT_MAX + 10 {
            postponed.failed(id);
        }
        assert_eq!(postponed.excluded().len(), KEPT_MAX);
    }
}
