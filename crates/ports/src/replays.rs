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

/// A place belongs to one call at a time, named by its hold: what is done for another hold does nothing and says so.
#[async_trait]
pub trait ReplayRepository: Send {
    /// Takes the place for this call, for so long; `anew` takes it from whichever call has it. Says whether it did.
    async fn claim(
        &mut self,
        claim: &AnswerClaim,
        hold_id: HoldId,
        keep: TimeDelta,
        anew: bool,
    ) -> Result<bool, StoreError>;
    async fn find(&mut self, claim: &AnswerClaim) -> Result<Option<FoundCall>, StoreError>;
    /// Writes down how the call ended, to be kept for so long from now where it says so.
    async fn finish(
        &mut self,
        claim: &AnswerClaim,
        hold_id: HoldId,
        end: &CallEnd,
        keep: Option<TimeDelta>,
    ) -> Result<bool, StoreError>;
    /// Gives the place of a call back that came to nothing.
    async fn abandon(&mut self, claim: &AnswerClaim, hold_id: HoldId) -> Result<bool, StoreError>;
    /// How the hold of a call stands; none where nothing was held.
    async fn find_hold(&mut self, hold_id: HoldId) -> Result<Option<HoldStatus>, StoreError>;
    /// Deletes what was kept long enough, at most `limit`; says how many.
    async fn delete_expired(&mut self, limit: u64) -> Result<u64, StoreError>;
}
