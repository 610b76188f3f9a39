//! Idempotency: what was asked for twice under one key is done once, and answered twice with the same bytes.
//!
//! The answer is kept in the transaction of the effect, so there is no moment in which one exists without the other.
//! A refusal is not kept: it claims nothing, and the same key may succeed later. An answer goes only to callers whose
//! rights cover those of whoever got it first, since it may hold a secret. Costs two statements where the caller
//! sends a key, nothing where not.

use std::sync::Arc;

use domain::idempotency::StoredAnswer;
use ports::idempotency::{AnswerClaim, Claimed};
use ports::store::{Scope, Store, StoreError, UnitOfWork};
use thiserror::Error;

/// How an outcome of type `T` is written down as an answer.
pub type Render<T> = Arc<dyn Fn(&T) -> StoredAnswer + Send + Sync>;

/// What a caller asked to have done once: the claim, if a key was sent, and how the outcome is written down.
pub struct Once<T> {
    pub claim: Option<AnswerClaim>,
    pub render: Render<T>,
}

impl<T> Clone for Once<T> {
    fn clone(&self) -> Self {
        Self { claim: self.claim.clone(), render: Arc::clone(&self.render) }
    }
}

/// The answer to a request that was made to be done once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Performed {
    /// It was done now.
    Fresh(StoredAnswer),
    /// It was done before; this is the first answer again.
    Replayed(StoredAnswer),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyConflict {
    #[error("this idempotency key was used with another body")]
    OtherBody,
    #[error("a request with this idempotency key is still at work")]
    InFlight,
    #[error("this idempotency key was used by a credential that may do more than yours")]
    BeyondRights,
}

impl<T> Once<T> {
    /// Takes the key for this transaction. `Ok(Ok(Some(answer)))` is the first answer of the same request.
    pub async fn claim(&self, work: &mut dyn UnitOfWork) -> Result<Result<Option<Performed>, KeyConflict>, StoreError> {
        let Some(claim) = &self.claim else { return Ok(Ok(None)) };
        Ok(match work.answers().claim(claim).await? {
            Claimed::Fresh => Ok(None),
            Claimed::Answered(answer) => Ok(Some(Performed::Replayed(answer))),
            Claimed::OtherBody => Err(KeyConflict::OtherBody),
            Claimed::BeyondRights => Err(KeyConflict::BeyondRights),
            Claimed::InFlight => Err(KeyConflict::InFlight),
        })
    }

    /// Writes the outcome down beside its effect; both become visible at the commit.
    pub async fn record(&self, work: &mut dyn UnitOfWork, outcome: &T) -> Result<Performed, StoreError> {
        let answer = (self.render)(outcome);
        if let Some(claim) = &self.claim {
            work.answers().record(claim, &answer).await?;
        }
        Ok(Performed::Fresh(answer))
    }
}

/// How many expired answers one sweep removes at most.
const SWEPT_AT_ONCE: u64 = 1_000;

/// Removes answers past their time; says how many.
pub async fn sweep_answers(store: &dyn Store) -> Result<u64, StoreError> {
    let mut work = store.begin(Scope::SERVICE).await?;
    let swept = work.answers().delete_expired(SWEPT_AT_ONCE).await?;
    work.commit().await?;
    Ok(swept)
}
