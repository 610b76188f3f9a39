//! Idempotency: answers that are stored in the transaction of their effect, sealed, and given again.

use async_trait::async_trait;
use domain::idempotency::{IdempotencyKey, StoredAnswer};
use domain::identity::CallerRights;
use domain::users::UserId;

use crate::store::StoreError;

/// A request: its caller, its route, its idempotency key and its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerClaim {
    pub caller: UserId,
    /// Method and path, such as `POST /api/keys`.
    pub route: String,
    pub key: IdempotencyKey,
    /// A digest of the body, so that the same key with another body is detected.
    pub fingerprint: Vec<u8>,
    /// The caller's present rights. They are stored with the answer.
    pub rights: CallerRights,
}

/// How a claim was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerClaimed {
    /// It was free: it is ours until the transaction ends.
    Fresh,
    /// The work was done before, for a caller whose rights this one's cover; this was the answer.
    Answered(StoredAnswer),
    /// The work was done before, for a caller with more rights.
    BeyondRights,
    /// The key was used with another body.
    OtherBody,
    /// Another request with this key is being executed.
    InFlight,
}

#[async_trait]
pub trait AnswerRepository: Send {
    /// Takes the claim for this transaction, without waiting.
    async fn claim(&mut self, claim: &AnswerClaim) -> Result<AnswerClaimed, StoreError>;
    /// Stores the answer; it becomes visible with the effect, at the commit.
    async fn record(&mut self, claim: &AnswerClaim, answer: &StoredAnswer) -> Result<(), StoreError>;
    /// Deletes expired answers, at most `limit`; returns how many.
    async fn delete_expired(&mut self, limit: u64) -> Result<u64, StoreError>;
}
