//! Snapshots: data that is read far more often than it changes, cached for at most a second by default.
//!
//! One reader at a time fetches; the others wait for it, at most `PATIENCE`. A snapshot never hides that the database
//! is away: past its age the next read fetches again and returns the error.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// The default maximum age of a snapshot.
pub const MAX_AGE: Duration = Duration::from_secs(1);

/// How long a reader waits for the one that fetches.
const PATIENCE: Duration = Duration::from_millis(100);

pub struct Snapshot<T> {
    max_age: Duration,
    held: Mutex<Option<(Instant, Arc<T>)>>,
}

impl<T> Default for Snapshot<T> {
    fn default() -> Self {
        Self::lasting(MAX_AGE)
    }
}

impl<T> Snapshot<T> {
    /// A snapshot with this maximum age.
    pub fn lasting(max_age: Duration) -> Self {
        Self { max_age, held: Mutex::new(None) }
    }

    /// The cached value, if it is young enough, else the result of `fetch`.
    pub async fn get<E>(&self, fetch: impl Future<Output = Result<T, E>>) -> Result<Arc<T>, E> {
        // Where the reader before is stuck, the database is slow or away: each reader then fetches for itself, instead
        // of waiting in a row for all those before it.
        let Ok(mut held) = tokio::time::timeout(PATIENCE, self.held.lock()).await else {
            return fetch.await.map(Arc::new);
        };
        if let Some((since, value)) = held.as_ref()
            && since.elapsed() < self.max_age
        {
            return Ok(Arc::clone(value));
        }
        // The age counts from before the read, since a change may follow right after it.
        let asked_at = Instant::now();
        let value = Arc::new(fetch.await?);
        *held = Some((asked_at, Arc::clone(&value)));
        Ok(value)
    }

    /// Drops the cached value: the next reader sees what was just changed here.
    pub async fn forget(&self) {
        *self.held.lock().await = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_is_fetched_once_a_second_and_after_a_change() {
        let fetched = AtomicU32::new(0);
        let snapshot = Snapshot::default();
        let read = async || {
            snapshot.get(async { Ok::<_, ()>(fetched.fetch_add(1, Ordering::SeqCst)) }).await.map(|value| *value)
        };
        assert_eq!((read().await, read().await), (Ok(0), Ok(0)));
        tokio::time::advance(MAX_AGE).await;
        assert_eq!(read().await, Ok(1));
        snapshot.forget().await;
        assert_eq!(read().await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_lasts_as_long_as_told() {
        let fetched = AtomicU32::new(0);
        let snapshot = Snapshot::lasting(Duration::from_mins(1));
        let read = async || {
            snapshot.get(async { Ok::<_, ()>(fetched.fetch_add(1, Ordering::SeqCst)) }).await.map(|value| *value)
        };
        assert_eq!(read().await, Ok(0));
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(read().await, Ok(0));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(read().await, Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn readers_behind_a_stuck_one_do_not_wait_in_a_row() {
        let snapshot = Snapshot::<u8>::default();
        let stuck = || async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            Err::<u8, _>("away")
        };
        let since = Instant::now();
        let answers = futures_util::future::join_all((0..5).map(|_| snapshot.get(stuck()))).await;
        assert!(answers.iter().all(Result::is_err));
        assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    }

    #[tokio::test]
    async fn an_error_is_handed_on_and_not_held() {
        let snapshot = Snapshot::<u8>::default();
        assert_eq!(snapshot.get(async { Err("away") }).await, Err("away"));
        assert_eq!(snapshot.get(async { Ok::<_, &str>(7) }).await.map(|value| *value), Ok(7));
    }
}
