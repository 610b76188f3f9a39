//! Polling until a condition holds.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// The pause between two polls.
const PAUSE: Duration = Duration::from_millis(10);

/// Polls until the condition holds, and returns the value for which it held. Panics if that takes longer than `within`.
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
