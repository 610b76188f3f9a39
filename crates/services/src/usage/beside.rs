//! Beside the batches: commands that left their batch, because a row was busy or because tokens move.
//!
//! Promises: a row that stays locked delays only the commands of its own user. One user's commands run one at a time
//! here, so a user takes one place, however many commands there are. A user whose row was found locked is kept out of
//! the batches for a pause that doubles, and takes a place that is kept for such users. Costs: a connection a place,
//! for as long as a lock may be waited for. Bounds: `PLACES` and one more at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Turn, OwnedMutexGuard, Semaphore, SemaphorePermit};
use uuid::Uuid;

use crate::postponed::PostponedItems;

/// How many users are served at once. Each takes a connection.
const PLACES: usize = 4;

/// How long a user is kept out of the batches after a row was found locked. It doubles while the row stays locked.
const KEPT_OUT_MIN: Duration = Duration::from_secs(2);
const KEPT_OUT_MAX: Duration = Duration::from_mins(1);

pub struct BusyUsers {
    places: Semaphore,
    /// For users whose rows were found locked.
    place_of_busy: Semaphore,
    turns: Mutex<HashMap<Uuid, Arc<Turn<()>>>>,
    /// Users whose rows were found locked.
    busy: PostponedItems<Uuid>,
}

/// The right to run one user's commands.
pub struct UserTurn<'a> {
    beside: &'a BusyUsers,
    user: Uuid,
    turn: Option<OwnedMutexGuard<()>>,
    _permit: Option<SemaphorePermit<'a>>,
}

impl Drop for UserTurn<'_> {
    fn drop(&mut self) {
        self.turn.take();
        let mut turns = guard(&self.beside.turns);
        // Only the map holds it: no command runs or waits.
        if turns.get(&self.user).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(&self.user);
        }
    }
}

impl BusyUsers {
    pub fn new() -> Self {
        Self {
            places: Semaphore::new(PLACES),
            place_of_busy: Semaphore::new(1),
            turns: Mutex::new(HashMap::new()),
            busy: PostponedItems::new(KEPT_OUT_MIN, KEPT_OUT_MAX),
        }
    }

    /// Waits for the user's turn and for a place.
    pub async fn enter(&self, user: Uuid) -> UserTurn<'_> {
        let turn = Arc::clone(guard(&self.turns).entry(user).or_default());
        let turn = turn.lock_owned().await;
        let places = if self.is_busy(user) { &self.place_of_busy } else { &self.places };
        // The semaphores are never closed.
        let permit = places.acquire().await.ok();
        UserTurn { beside: self, user, turn: Some(turn), _permit: permit }
    }

    /// Whether a row of this user was found locked recently: a batch leaves the user's commands out.
    pub fn is_busy(&self, user: Uuid) -> bool {
        self.busy.excludes(user)
    }

    /// Notes that a row of this user stayed locked for as long as could be waited.
    pub fn found_locked(&self, user: Uuid) {
        self.busy.failed(user);
    }

    /// Notes that a command of this user was done.
    pub fn found_free(&self, user: Uuid) {
        self.busy.done(user);
    }
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No step under the lock can leave the map half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = Uuid::from_u128(1);

    async fn is_let_in(beside: &BusyUsers, user: Uuid) -> bool {
        tokio::time::timeout(Duration::from_millis(1), beside.enter(user)).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn one_user_takes_one_place() {
        let beside = BusyUsers::new();
        let place = beside.enter(A).await;
        assert!(!is_let_in(&beside, A).await, "one at a time");
        for number in 2..=u128::try_from(PLACES).unwrap() {
            assert!(is_let_in(&beside, Uuid::from_u128(number)).await);
        }
        drop(place);
        assert!(is_let_in(&beside, A).await);
        assert!(guard(&beside.turns).is_empty(), "nobody is remembered who does not wait");
    }

    #[tokio::test(start_paused = true)]
    async fn users_with_locked_rows_take_no_place_of_others() {
        let beside = BusyUsers::new();
        let users: Vec<Uuid> = (1..=20).map(Uuid::from_u128).collect();
        for user in &users {
            beside.found_locked(*user);
        }
        let _one = beside.enter(users[0]).await;
        assert!(!is_let_in(&beside, users[1]).await, "they share one place");
        assert!(is_let_in(&beside, Uuid::from_u128(99)).await);
        tokio::time::advance(KEPT_OUT_MIN).await;
        assert!(is_let_in(&beside, users[1]).await, "and are tried like others after a while");
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_doubles_until_the_row_is_free() {
        let beside = BusyUsers::new();
        beside.found_locked(A);
        beside.found_locked(A);
        tokio::time::advance(KEPT_OUT_MIN).await;
        assert!(beside.is_busy(A));
        beside.found_free(A);
        assert!(!beside.is_busy(A));
        beside.found_locked(A);
        tokio::time::advance(KEPT_OUT_MIN).await;
        assert!(!beside.is_busy(A));
    }
}
