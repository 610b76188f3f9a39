//! Waiting for what comes about by itself, soon.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Between one look and the next.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks again and again until it is so, and gives what was seen then. It must be so within this time.
pub async fn eventually<T: Display>(
    within: Duration,
    mut look: impl AsyncFnMut() -> T,
    is_so: impl Fn(&T) -> bool,
) -> T {
    let since = Instant::now();
    loop {
        let asked_at = since.elapsed();
        let seen = look().await;
        if is_so(&seen) {
            return seen;
        }
        assert!(asked_at < within, "not so within {within:?}: {seen}");
        tokio::time::sleep(PAUSE).await;
    }
}
