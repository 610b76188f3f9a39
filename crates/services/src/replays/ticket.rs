//! Tickets: whoever has one makes the call. What is written to it is kept for repeats; dropped before its end, it gives the
//! place back where nothing was charged, and else says that the answer is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domain::replays::{Repeat, Unkept};
use domain::usage::{HoldId, HoldStatus};
use ports::idempotency::AnswerClaim;
use ports::replays::CallEnd;
use ports::store::{Scope, StoreError};
use tracing::warn;

use super::running::{Heading, RunningAnswer};
use super::service::{Asked, Place, ReplayService};
use super::unkeyed::UnkeyedCall;

/// How often the end of a call is tried to be written down, and the pause between two tries: 10 s in all, which is less than
/// `domain::replays` waits for it.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);

/// How often the hold of a call without an answer is looked at until it has ended, and the pauses between two looks, which
/// double: 10 s in all.
const LOOKS: u32 = 15;
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// Tells that the client has the head of the answer, so that its SDK does not try again by itself.
#[derive(Clone, Debug, Default)]
pub struct Taken(Arc<AtomicBool>);

impl Taken {
    pub fn tell(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// What stands behind a ticket.
pub(super) struct Entry {
    pub service: Arc<ReplayService>,
    pub place: Place,
    pub claim: AnswerClaim,
    pub repeat: Repeat,
    /// Of a call without a key.
    pub unkeyed: Option<UnkeyedCall>,
    pub hold_id: HoldId,
    pub answer: Arc<RunningAnswer>,
}

pub struct Ticket {
    /// None once its end is told.
    entry: Option<Box<Entry>>,
    /// Whether the place may be ours in the database.
    pub(super) is_claimed: bool,
    hold_id: HoldId,
    taken: Taken,
}

impl Ticket {
    pub(super) fn new(entry: Entry) -> Self {
        Self { hold_id: entry.hold_id, entry: Some(Box::new(entry)), is_claimed: false, taken: Taken::default() }
    }

    pub(super) fn entry(&self) -> Option<&Entry> {
        self.entry.as_deref()
    }

    /// The id that the call's hold must have: by it the place is known to be the call's.
    pub const fn hold_id(&self) -> HoldId {
        self.hold_id
    }

    pub fn taken(&self) -> Taken {
        self.taken.clone()
    }

    pub fn begin(&self, heading: Heading) {
        if let Some(entry) = &self.entry {
            entry.answer.begin(heading);
        }
    }

    pub fn write(&self, bytes: &[u8]) {
        if let Some(entry) = &self.entry {
            entry.answer.write(bytes);
        }
    }

    /// Whether the answer is to be made to its end when the client has gone: for a key always; for an SDK while it may try
    /// again by itself, which it does not once it has the head; and for whoever reads along.
    pub fn wants_the_rest(&self) -> bool {
        let Some(entry) = &self.entry else { return false };
        let may_repeat = entry.repeat.is_keyed() || !self.taken.0.load(Ordering::Acquire);
        entry.answer.unkept().is_none() && (may_repeat || entry.answer.has_listeners())
    }

    /// After the last byte. Not whole is what broke off, or what nobody wanted any more.
    pub fn end(&mut self, is_whole: bool) {
        let is_wanted = self.wants_the_rest();
        let Some(entry) = self.entry.take() else { return };
        if !is_whole && !is_wanted && entry.answer.unkept().is_none() {
            entry.answer.forgo(Unkept::Lost);
        }
        entry.answer.end();
        let runtime = entry.service.runtime.clone();
        runtime.spawn(entry.end(is_whole));
    }
}

impl Drop for Ticket {
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
    pub fn asked(&self) -> Asked {
        Asked { claim: self.claim.clone(), repeat: self.repeat.clone() }
    }

    /// Keeps the answer. One that broke off is kept as it was told, if it was charged.
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

    /// How it ended, to be written down.
    pub(super) fn outcome(&self) -> CallEnd {
        match (self.answer.unkept(), self.answer.whole()) {
            (Some(why), _) => CallEnd::Unkept(why),
            (None, Some(answer)) => CallEnd::Answered(answer),
            (None, None) => CallEnd::Unkept(Unkept::Lost),
        }
    }

    /// There is no answer, for the call was refused, failed or broke.
    async fn let_go(self) {
        if let Some(call) = self.unkeyed.clone() {
            return self.let_go_unkeyed(&call).await;
        }
        if self.came_to_nothing().await {
            return self.give_back().await;
        }
        self.answer.forgo(Unkept::Lost);
        self.finish(CallEnd::Unkept(Unkept::Lost)).await;
    }

    /// Whether nothing was charged. Waits for the end of the hold; what is not known by then counts as charged.
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

    /// Does it until it is done: both can be told twice. What is not written down is lost for a repeat.
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
