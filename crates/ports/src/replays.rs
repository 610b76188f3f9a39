//! Replays: the answers of paid calls, stored outside of the transaction of their effect, sealed, and given again.

use async_trait::async_trait;
use chrono::TimeDelta;
use domain::replays::{AwaitedCall, NotReplayable};
use domain::usage::{HoldId, HoldStatus};

use crate::idempotency::AnswerClaim;
use crate::store::StoreError;

/// An answer as it was sent to the client.
#[derive(Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    pub status: u16,
    pub content_type: String,
    /// Other headers that a repeat gets too.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

// The text of a model stays out of logs.
impl std::fmt::Debug for KeptAnswer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "KeptAnswer({}, {} bytes)", self.status, self.body.len())
    }
}

/// How a call ended that keeps its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallEnd {
    Answered(KeptAnswer),
    NotReplayable(NotReplayable),
}

/// How a call was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundCall {
    /// The place is taken by a call with another body; one that may still be refused is reported as awaited.
    OtherBody,
    /// It was requested by a caller with more rights.
    BeyondRights,
    Ended(CallEnd),
    /// A process makes it, or did.
    Awaited {
        hold_id: HoldId,
        awaited: AwaitedCall,
    },
}

/// A call whose client left.
#[derive(Clone, Copy, Debug)]
pub struct LeftCall<'a> {
    pub hold_id: HoldId,
    /// How it ended; `None` while it runs.
    pub end: Option<&'a CallEnd>,
    /// How long it can be adopted from now on.
    pub keep: TimeDelta,
}

/// A place belongs to one call at a time, identified by its reservation: an operation with another reservation does
/// nothing and returns that.
#[async_trait]
pub trait ReplayRepository: Send {
    /// Takes the place for this call, for `keep`. Returns whether it did.
    async fn claim(&mut self, claim: &AnswerClaim, hold_id: HoldId, keep: TimeDelta) -> Result<bool, StoreError>;
    async fn find(&mut self, claim: &AnswerClaim) -> Result<Option<FoundCall>, StoreError>;
    /// Records how the call ended.
    async fn finish(&mut self, claim: &AnswerClaim, hold_id: HoldId, end: &CallEnd) -> Result<bool, StoreError>;
    /// Releases the place of a call that came to nothing.
    async fn abandon(&mut self, claim: &AnswerClaim, hold_id: HoldId) -> Result<bool, StoreError>;
    /// Records that the client of a call without an idempotency key has left before its end. `content` is what was
    /// requested: by its key `adopt` finds the call. Does nothing where the call is recorded already.
    async fn leave(&mut self, claim: &AnswerClaim, content: &AnswerClaim, call: LeftCall<'_>)
    -> Result<(), StoreError>;
    /// The same for a retry that adopted the call and has left too.
    async fn leave_again(
        &mut self,
        claim: &AnswerClaim,
        content: &AnswerClaim,
        hold_id: HoldId,
    ) -> Result<(), StoreError>;
    /// Takes over a call with this content that was left, so that no other retry does: first one that is answered, then
    /// one that runs, then one whose answer is lost. The reservation identifies the call.
    async fn adopt(&mut self, content: &AnswerClaim) -> Result<Option<HoldId>, StoreError>;
    /// Deletes the record of a call.
    async fn forget(&mut self, claim: &AnswerClaim, hold_id: HoldId) -> Result<(), StoreError>;
    /// The status of a call's reservation; `None` where nothing was reserved.
    async fn find_hold(&mut self, hold_id: HoldId) -> Result<Option<HoldStatus>, StoreError>;
    /// Deletes expired answers, at most `limit`; returns how many.
    async fn delete_expired(&mut self, limit: u64) -> Result<u64, StoreError>;
}
