//! Detached work: a use case runs in a task of its own, which outlives the connection that asked for it.
//!
//! A client that hangs up drops the handler in the middle of whatever it awaits. If that were a statement, the
//! transaction and its pooled connection would be left in an unknown state (design/security.md, hazard 2).

use super::problem::Problem;

/// Runs `work` to its end, whether or not anybody still waits for it.
pub async fn detached<T, E>(work: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, Problem>
where
    T: Send + 'static,
    E: Into<Problem> + Send + 'static,
{
    match tokio::spawn(work).await {
        Ok(outcome) => outcome.map_err(Into::into),
        Err(broken) => Err(Problem::internal(&broken)),
    }
}
