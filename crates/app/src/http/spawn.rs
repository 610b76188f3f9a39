//! Spawned work: a use case runs in a task of its own, which outlives the connection that requested it.
//!
//! A client that disconnects drops the handler in the middle of whatever it awaits. If that were a statement, the
//! transaction and its pooled connection would be left in an unknown state (sqlx issue 4385).
//! The task runs on the process's own runtime, not on the HTTP worker's, which ends with the worker.

use std::cell::OnceCell;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tracing::Instrument;

use super::problem::Problem;

/// How many use cases may be under way in this process. Those of clients that disconnect go on, so the number of
/// connections does not bound them.
const UNDER_WAY_AT_MOST: usize = 2_000;

static PLACES: Semaphore = Semaphore::const_new(UNDER_WAY_AT_MOST);

thread_local! {
    /// The runtime of this HTTP worker's use cases.
    static RUNTIME: OnceCell<Handle> = const { OnceCell::new() };
}

/// Sets the runtime of the calling HTTP worker's use cases, from now on.
pub fn run_on(runtime: &Handle) {
    RUNTIME.with(|chosen| {
        // A worker builds its application once; a second call would set the same runtime.
        chosen.get_or_init(|| runtime.clone());
    });
}

/// The runtime of the calling HTTP worker's use cases.
pub fn runtime() -> Handle {
    RUNTIME.with(|chosen| chosen.get().cloned()).unwrap_or_else(Handle::current)
}

/// Runs `work` to its end, even if its caller is dropped.
pub async fn detached<T, E>(work: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, Problem>
where
    T: Send + 'static,
    E: Into<Problem> + Send + 'static,
{
    let Ok(place) = PLACES.try_acquire() else {
        return Err(Problem::unavailable("busy", "Too many requests are under way. Nothing was done; send it again."));
    };
    let kept = async move {
        let _place = place;
        work.await
    };
    match runtime().spawn(kept.in_current_span()).await {
        Ok(outcome) => outcome.map_err(Into::into),
        Err(broken) => Err(Problem::internal(&broken)),
    }
}
