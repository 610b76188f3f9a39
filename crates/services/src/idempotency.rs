//! Idempotency: a request that is sent twice under one key is executed once, and answered twice with the same bytes.
//!
//! The answer is stored in the transaction of the effect, so there is no moment in which one exists without the other.
//! A refusal is not stored: it claims nothing, and the same key may succeed later. An answer goes only to callers whose
//! rights cover those of the first caller, since it may hold a secret. Costs two statements where the caller sends a
//! key, nothing otherwise.

use std::sync::Arc;

use domain::idempotency::StoredAnswer;
use ports::idempotency::{AnswerClaim, AnswerClaimed};
use ports::store::{Scope, Store, StoreError, UnitOfWork};
use thiserror::Error;

/// How an outcome of type `T` is rendered as an answer.
pub type RenderAnswer<T> = Arc<dyn Fn(&T) -> StoredAnswer + Send + Sync>;

/// A request that is to be executed once: the claim, if a key was sent, and how the outcome is rendered.
pub struct IdempotencyService<T> {
    pub claim: Option<AnswerClaim>,
    pub render: RenderAnswer<T>,
}

impl<T> Clone for IdempotencyService<T> {
    fn clone(&self) -> Self {
        Self { claim: self.claim.clone(), render: Arc::clone(&self.render) }
    }
}

/// The answer to a request that is executed once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdempotentAnswer {
    /// It was executed now.
    Fresh(StoredAnswer),
    /// It was executed before; this is the first answer again.
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

impl<T> IdempotencyService<T> {
    /// Claims the key for this transaction. `Ok(Ok(Some(answer)))` is the first answer of the same request.
    pub async fn claim(
        &self,
        work: &mut dyn UnitOfWork,
    ) -> Result<Result<Option<IdempotentAnswer>, KeyConflict>, StoreError> {
        let Some(claim) = &self.claim else { return Ok(Ok(None)) };
        Ok(match work.answers().claim(claim).await? {
            AnswerClaimed::Fresh => Ok(None),
            AnswerClaimed::Answered(answer) => Ok(Some(IdempotentAnswer::Replayed(answer))),
            AnswerClaimed::OtherBody => Err(KeyConflict::OtherBody),
            AnswerClaimed::BeyondRights => Err(KeyConflict::BeyondRights),
            AnswerClaimed::InFlight => Err(KeyConflict::InFlight),
        })
    }

    /// Stores the outcome with its effect; both become visible at the commit.
    pub async fn record(&self, work: &mut dyn UnitOfWork, outcome: &T) -> Result<IdempotentAnswer, StoreError> {
        let answer = (self.render)(outcome);
        if let Some(claim) = &self.claim {
            work.answers().record(claim, &answer).await?;
        }
        Ok(IdempotentAnswer::Fresh(answer))
    }
}

/// How many expired answers one sweep deletes at most.
const SWEPT_AT_ONCE: u64 = 1_000;

/// Deletes expired answers; returns how many.
pub async fn sweep_answers(store: &dyn Store) -> Result<u64, StoreError> {
    let mut work = store.begin(Scope::SERVICE).await?;
    let swept = work.answers().delete_expired(SWEPT_AT_ONCE).await?;
    work.commit().await?;
    Ok(swept)
}
