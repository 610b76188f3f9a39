//! Claims: the holder of a `CallClaim` makes the call. What is written to it is kept for repeats. If it is dropped
//! before its end, the place is released where nothing was charged; otherwise the answer is recorded as lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domain::replays::{NotReplayable, RetryKind};
use domain::usage::{HoldId, HoldStatus};
use ports::idempotency::AnswerClaim;
use ports::replays::CallEnd;
use ports::store::{Scope, StoreError};
use tracing::warn;

use super::running::{AnswerHeading, RunningAnswer};
use super::service::{Place, ReplayRequest, ReplayService};
use super::unkeyed::UnkeyedCall;

/// How often recording the end of a call is tried, and the pause between two tries: 10 s in all, which is less than
/// `domain::replays` waits for it.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);

/// How often the reservation of a call without an answer is read until it has ended, and the pauses between two reads,
/// which double: 10 s in all.
const LOOKS: u32 = 15;
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// Set once the client has the head of the answer: its SDK then does not retry by itself.
#[derive(Clone, Debug, Default)]
pub struct ClaimTaken(Arc<AtomicBool>);

impl ClaimTaken {
    pub fn tell(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The contents of a `CallClaim`.
pub(super) struct Entry {
    pub service: Arc<ReplayService>,
    pub place: Place,
    pub claim: AnswerClaim,
    pub repeat: RetryKind,
    /// Set for a call without an idempotency key.
    pub unkeyed: Option<UnkeyedCall>,
    pub hold_id: HoldId,
    pub answer: Arc<RunningAnswer>,
}

pub struct CallClaim {
    /// `None` once the call has ended.
    entry: Option<Box<Entry>>,
    /// Whether the place may be ours in the database.
    pub(super) is_claimed: bool,
    hold_id: HoldId,
    taken: ClaimTaken,
}

impl CallClaim {
    pub(super) fn new(entry: Entry) -> Self {
        Self { hold_id: entry.hold_id, entry: Some(Box::new(entry)), is_claimed: false, taken: ClaimTaken::default() }
    }

    pub(super) fn entry(&self) -> Option<&Entry> {
        self.entry.as_deref()
    }

    /// The id that the call's reservation must have: it identifies the place as the call's.
    pub const fn hold_id(&self) -> HoldId {
        self.hold_id
    }

    pub fn taken(&self) -> ClaimTaken {
        self.taken.clone()
    }

    pub fn begin(&self, heading: AnswerHeading) {
        if let Some(entry) = &self.entry {
            entry.answer.begin(heading);
        }
    }

    pub fn write(&self, bytes: &[u8]) {
        if let Some(entry) = &self.entry {
            entry.answer.write(bytes);
        }
    }

    /// Whether the answer is to be made to its end when the client has gone: with an idempotency key always; for an SDK
    /// while it may retry by itself, which it does not once it has the head; and while there are listeners.
    pub fn wants_the_rest(&self) -> bool {
        let Some(entry) = &self.entry else { return false };
        let may_repeat = entry.repeat.is_keyed() || !self.taken.0.load(Ordering::Acquire);
        entry.answer.unkept().is_none() && (may_repeat || entry.answer.has_listeners())
    }

    /// After the last byte. An answer is not whole if it broke off or was no longer wanted.
    pub fn end(&mut self, is_whole: bool) {
        let is_wanted = self.wants_the_rest();
        let Some(entry) = self.entry.take() else { return };
        if !is_whole && !is_wanted && entry.answer.unkept().is_none() {
            entry.answer.forgo(NotReplayable::Lost);
        }
        entry.answer.end();
        let runtime = entry.service.runtime.clone();
        runtime.spawn(entry.end(is_whole));
    }
}

impl Drop for CallClaim {
    fn drop(&mut self) {
        let Some(entry) = self.entry.take() else { return };
        if self.is_claimed || entry.unkeyed.is_some() {
            let runtime = entry.service.runtime.clone();
            runtime.spawn(entry.let_go());
        } else {
            entry.vacate();
        }
    }
}

impl Entry {
    pub fn asked(&self) -> ReplayRequest {
        ReplayRequest { claim: self.claim.clone(), repeat: self.repeat.clone() }
    }

    /// Stores the answer. One that broke off is stored as it was sent, if it was charged.
    async fn end(self, is_whole: bool) {
        if let Some(call) = self.unkeyed.clone() {
            return self.end_unkeyed(&call, is_whole).await;
        }
        let end = self.outcome();
        if !is_whole && matches!(end, CallEnd::Answered(_)) && self.came_to_nothing().await {
            return self.give_back().await;
        }
        self.finish(end).await;
    }

    /// How the call ended, for the record.
    pub(super) fn outcome(&self) -> CallEnd {
        match (self.answer.unkept(), self.answer.whole()) {
            (Some(why), _) => CallEnd::NotReplayable(why),
            (None, Some(answer)) => CallEnd::Answered(answer),
            (None, None) => CallEnd::NotReplayable(NotReplayable::Lost),
        }
    }

    /// There is no answer, because the call was refused, failed or broke off.
    async fn let_go(self) {
        if let Some(call) = self.unkeyed.clone() {
            return self.let_go_unkeyed(&call).await;
        }
        if self.came_to_nothing().await {
            return self.give_back().await;
        }
        self.answer.forgo(NotReplayable::Lost);
        self.finish(CallEnd::NotReplayable(NotReplayable::Lost)).await;
    }

    /// Whether nothing was charged. Waits for the end of the reservation; what is not known by then counts as charged.
    pub(super) async fn came_to_nothing(&self) -> bool {
        let mut pause = FIRST_LOOK;
        for _ in 0..LOOKS {
            match self.service.find_hold(self.hold_id).await {
                Ok(None | Some(HoldStatus::Released)) => return true,
                Ok(Some(HoldStatus::Settled | HoldStatus::Expired)) => return false,
                Ok(Some(HoldStatus::Pending)) | Err(_) => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(LONGEST_LOOK);
        }
        false
    }

    async fn give_back(&self) {
        let abandoned = self.in_the_books(|| async {
            let mut work = self.service.store.begin(Scope::SERVICE).await?;
            work.replays().abandon(&self.claim, self.hold_id).await?;
            work.commit().await
        });
        abandoned.await;
        self.vacate();
    }

    async fn finish(&self, end: CallEnd) {
        let finished = self.in_the_books(|| async {
            let mut work = self.service.store.begin(Scope::SERVICE).await?;
            work.replays().finish(&self.claim, self.hold_id, &end).await?;
            work.commit().await
        });
        finished.await;
        self.service.leave_place(&self.place, &self.answer);
    }

    fn vacate(&self) {
        self.service.leave_place(&self.place, &self.answer);
        self.answer.vacate();
    }

    /// Retries until it succeeds: both writes can be repeated. What is not recorded is lost for a repeat.
    async fn in_the_books<F>(&self, work: impl Fn() -> F)
    where
        F: Future<Output = Result<(), StoreError>>,
    {
        for _ in 1..TRIES {
            match work().await {
                Ok(()) => return,
                Err(StoreError::Conflict | StoreError::Busy | StoreError::Unavailable(_) | StoreError::InDoubt(_)) => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return warn!(%error, call = %self.hold_id.0, "the answer of a call could not be kept"),
            }
        }
        if let Err(error) = work().await {
            warn!(%error, call = %self.hold_id.0, "the answer of a call could not be kept; a repeat is told that it is lost");
        }
    }
}
