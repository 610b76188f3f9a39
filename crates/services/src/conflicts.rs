//! Conflicts: a transaction that conflicts with another one is repeated from the start.

use std::time::Duration;

use ports::store::StoreError;

/// How often the same work is tried in all.
const ATTEMPTS: u32 = 3;

/// The pause before the second attempt; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// An error that may be a conflict of transactions.
pub trait MayConflict {
    fn is_conflict(&self) -> bool;
}

impl MayConflict for StoreError {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict | Self::Busy)
    }
}

/// Runs a whole use case, its `begin` included, again while it ends in a conflict; at most three times.
///
/// The bound is `FnMut() -> Future` and not `AsyncFnMut`, whose future cannot be shown to be `Send` where it is
/// spawned.
pub async fn retry_conflicts<T, E, F>(mut work: impl FnMut() -> F) -> Result<T, E>
where
    E: MayConflict,
    F: Future<Output = Result<T, E>>,
{
    let mut pause = FIRST_PAUSE;
    for _ in 1..ATTEMPTS {
        match work().await {
            Err(error) if error.is_conflict() => tokio::time::sleep(pause).await,
            settled => return settled,
        }
        pause *= 2;
    }
    work().await
}

/// Implements [`MayConflict`] for an error enum that has the variant `Store(StoreError)`.
macro_rules! may_conflict {
    ($($error:ty),+) => {
        $(impl crate::conflicts::MayConflict for $error {
            fn is_conflict(&self) -> bool {
                use ports::store::StoreError;
                matches!(self, Self::Store(StoreError::Conflict | StoreError::Busy))
            }
        })+
    };
}
pub(crate) use may_conflict;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_conflict_is_tried_three_times_and_no_more() {
        let tried = Cell::new(0);
        let settled: Result<(), _> = retry_conflicts(async || {
            tried.set(tried.get() + 1);
            Err(StoreError::Conflict)
        })
        .await;
        assert!(matches!(settled, Err(StoreError::Conflict)));
        assert_eq!(tried.get(), 3);
    }

    #[tokio::test]
    async fn another_error_is_not_tried_again() {
        let tried = Cell::new(0);
        let settled: Result<(), _> = retry_conflicts(async || {
            tried.set(tried.get() + 1);
            Err(StoreError::Unexpected("no".into()))
        })
        .await;
        assert!(settled.is_err());
        assert_eq!(tried.get(), 1);
    }
}
