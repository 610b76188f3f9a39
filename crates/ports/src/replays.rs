//! Replays: the answers of paid calls, kept outside of the transaction of their effect, sealed, and given again.

use async_trait::async_trait;
use chrono::TimeDelta;
use domain::replays::{Awaited, Unkept};
use domain::usage::{HoldId, HoldStatus};

use crate::idempotency::AnswerClaim;
use crate::store::StoreError;

/// An answer as it went over the wire.
#[derive(Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    pub status: u16,
    pub content_type: String,
    /// What else of its head is given again.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

// What a model said stays out of logs.
impl std::fmt::Debug for KeptAnswer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "KeptAnswer({}, {} bytes)", self.status, self.body.len())
    }
}

/// How a call ended that keeps its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallEnd {
    Answered(KeptAnswer),
    Unkept(Unkept),
}

/// What is known of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundCall {
    /// The place is taken by a call with another body; one that may still be refused is awaited all the same.
    OtherBody,
    /// It was asked for by a caller who could do more.
    BeyondRights,
    Ended(CallEnd),
    /// Somebody makes it, or did.
    Awaited {
        hold_id: HoldId,
        awaited: Awaited,
    },
}

/// A call that its client left.
#[derive(Clone, Copy, Debug)]
pub struct Left<'a> {
    pub hold_id: HoldId,
    /// How it ended; `None` while it runs.
    pub end: Option<&'a CallEnd>,
    /// For how long it can be adopted from now on.
    pub keep: TimeDelta,
}

/// A place belongs to one call at a time, named by its hold: what is done for another hold does nothing and says so.
#[async_trait]
pub trait ReplayRepository: Send {
    /// Takes the place for this call, for so long. Says whether it did.
    async fn claim(&mut self, claim: &AnswerClaim, hold_id: HoldId, keep: TimeDelta) -> Result<bool, StoreError>;
    async fn find(&mut self, claim: &AnswerClaim) -> Result<Option<FoundCall>, StoreError>;
    /// Writes down how the call ended.
    async fn finish(&mut self, claim: &AnswerClaim, hold_id: HoldId, end: &CallEnd) -> Result<bool, StoreError>;
    /// Gives the place of a call back that came to nothing.
    async fn abandon(&mut self, claim: &AnswerClaim, hold_id: HoldId) -> Result<bool, StoreError>;
    /// Writes down that the client of a call without a key has left before its end. `content` is what was asked: by its key
    /// the call is found by `adopt`. Does nothing where the call is known already.
    async fn leave(&mut self, claim: &AnswerClaim, content: &AnswerClaim, call: Left<'_>) -> Result<(), StoreError>;
    /// The same for whoever adopted the call and has left too.
    async fn leave_again(
        &mut self,
        claim: &AnswerClaim,
        content: &AnswerClaim,
        hold_id: HoldId,
    ) -> Result<(), StoreError>;
    /// Takes over a call with this content that was left, so that nobody else does: first one that is answered, then one
    /// that runs, then one whose answer is lost. The hold names the call.
    async fn adopt(&mut self, content: &AnswerClaim) -> Result<Option<HoldId>, StoreError>;
    /// Deletes what is known of a call.
    async fn forget(&mut self, claim: &AnswerClaim, hold_id: HoldId) -> Result<(), StoreError>;
    /// How the hold of a call stands; none where nothing was held.
    async fn find_hold(&mut self, hold_id: HoldId) -> Result<Option<HoldStatus>, StoreError>;
    /// Deletes what was kept long enough, at most `limit`; says how many.
    async fn delete_expired(&mut self, limit: u64) -> Result<u64, StoreError>;
}
