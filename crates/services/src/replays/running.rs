//! Running answers: an answer is kept from its start, and each listener reads it from there and follows.
//!
//! Promises: a listener gets every byte in order, however late it comes and however slowly it reads; it delays no
//! other. Costs: the bytes, once for all listeners, until the last of them and the writer have gone. They are bounded
//! for each answer and for all together; an answer that goes beyond is not kept, and its listeners get an error.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::identity::CallerRights;
use domain::replays::{KEPT_BODY_MAX, NotReplayable};
use ports::replays::KeptAnswer;
use tokio::sync::watch;

use super::service::Place;

/// Everything of an answer before its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerHeading {
    pub status: u16,
    pub content_type: String,
    /// Other headers that a repeat gets too.
    pub headers: Vec<(String, String)>,
}

/// The memory for all running answers together, in bytes.
pub(super) struct Room {
    left: AtomicUsize,
}

impl Room {
    pub const fn of(bytes: usize) -> Self {
        Self { left: AtomicUsize::new(bytes) }
    }

    fn take(&self, bytes: usize) -> bool {
        self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(bytes)).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.left.fetch_add(bytes, Ordering::AcqRel);
    }
}

/// How far an answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing of it has arrived.
    Awaited,
    Begun,
    /// All of it has arrived.
    Ended,
    /// There will be none, and nothing was charged: a waiting request may make the call.
    Vacated,
    NotReplayable(NotReplayable),
}

/// The state of the client of a call without an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    Waits,
    /// It has left, and that is being recorded.
    Leaves,
    Left,
    /// It has the whole answer, or the reason why there is none.
    Served,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    chunks: usize,
    phase: Phase,
}

#[derive(Default)]
struct Content {
    heading: Option<AnswerHeading>,
    chunks: Vec<Arc<[u8]>>,
    bytes: usize,
}

pub(super) struct RunningAnswer {
    /// The fingerprint of the answered request.
    pub fingerprint: Vec<u8>,
    /// The rights of its caller.
    pub rights: CallerRights,
    /// For a call without an idempotency key: the place that calls with the same content share.
    pub asked: Option<Place>,
    client: watch::Sender<Client>,
    content: Mutex<Content>,
    progress: watch::Sender<Progress>,
    room: Arc<Room>,
}

impl RunningAnswer {
    pub fn new(fingerprint: Vec<u8>, rights: CallerRights, asked: Option<Place>, room: Arc<Room>) -> Self {
        let (progress, _) = watch::channel(Progress { chunks: 0, phase: Phase::Awaited });
        let (client, _) = watch::channel(Client::Waits);
        Self { fingerprint, rights, asked, client, content: Mutex::default(), progress, room }
    }

    pub fn client(&self) -> Client {
        *self.client.borrow()
    }

    pub fn say_of_client(&self, client: Client) {
        self.client.send_replace(client);
    }

    /// Waits until the client has left or is served; returns whether it is served.
    pub async fn is_served(&self) -> bool {
        let mut heard = self.client.subscribe();
        let client = heard.wait_for(|client| matches!(client, Client::Left | Client::Served)).await;
        // We own the sender.
        client.is_ok_and(|client| *client == Client::Served)
    }

    pub fn listen(self: &Arc<Self>) -> AnswerListener {
        AnswerListener { progress: self.progress.subscribe(), answer: Arc::clone(self), next: 0 }
    }

    pub fn has_listeners(&self) -> bool {
        self.progress.receiver_count() > 0
    }

    pub fn begin(&self, heading: AnswerHeading) {
        self.content().heading = Some(heading);
        self.come_to(Phase::Begun);
    }

    pub fn write(&self, bytes: &[u8]) {
        let mut content = self.content();
        if bytes.is_empty() || self.progress.borrow().phase != Phase::Begun {
            return;
        }
        let fits = content.bytes + bytes.len() <= KEPT_BODY_MAX && self.room.take(bytes.len());
        if !fits {
            drop(content);
            return self.forgo(NotReplayable::TooLong);
        }
        content.bytes += bytes.len();
        content.chunks.push(bytes.into());
        let chunks = content.chunks.len();
        drop(content);
        self.progress.send_modify(|progress| progress.chunks = chunks);
    }

    pub fn end(&self) {
        if self.progress.borrow().phase == Phase::Begun {
            self.come_to(Phase::Ended);
        }
    }

    pub fn vacate(&self) {
        self.come_to(Phase::Vacated);
    }

    /// Marks the answer as not kept.
    pub fn forgo(&self, why: NotReplayable) {
        let freed = {
            let mut content = self.content();
            content.chunks = Vec::new();
            std::mem::take(&mut content.bytes)
        };
        self.room.give_back(freed);
        self.come_to(Phase::NotReplayable(why));
    }

    pub fn unkept(&self) -> Option<NotReplayable> {
        match self.progress.borrow().phase {
            Phase::NotReplayable(why) => Some(why),
            _ => None,
        }
    }

    /// All that was written so far.
    pub fn whole(&self) -> Option<KeptAnswer> {
        let content = self.content();
        let AnswerHeading { status, content_type, headers } = content.heading.clone()?;
        Some(KeptAnswer { status, content_type, headers, body: content.chunks.concat() })
    }

    fn come_to(&self, phase: Phase) {
        self.progress.send_modify(|progress| progress.phase = phase);
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        // No step under the lock can leave the content half changed.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RunningAnswer {
    fn drop(&mut self) {
        let bytes = self.content().bytes;
        self.room.give_back(bytes);
    }
}

/// How an awaited answer starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StartState {
    Begun,
    Vacated,
    NotReplayable(NotReplayable),
}

/// Reads the answer to another request, from its start.
pub struct AnswerListener {
    answer: Arc<RunningAnswer>,
    progress: watch::Receiver<Progress>,
    next: usize,
}

impl AnswerListener {
    /// Waits until a part of the answer has arrived, or it is known that none will.
    pub(super) async fn start_state(&mut self) -> StartState {
        let seen = self.progress.wait_for(|progress| progress.phase != Phase::Awaited).await;
        match seen.map(|progress| progress.phase) {
            Ok(Phase::Begun | Phase::Ended) => StartState::Begun,
            Ok(Phase::NotReplayable(why)) => StartState::NotReplayable(why),
            // The sender lives as long as the answer, which this listener holds.
            Ok(Phase::Vacated | Phase::Awaited) | Err(_) => StartState::Vacated,
        }
    }

    pub fn heading(&self) -> Option<AnswerHeading> {
        self.answer.content().heading.clone()
    }

    /// The answer, if all of it has arrived.
    pub fn whole(&self) -> Option<KeptAnswer> {
        let is_ended = self.progress.borrow().phase == Phase::Ended;
        is_ended.then(|| self.answer.whole()).flatten()
    }

    /// The next bytes, once they have arrived; `None` after the last. An error where the rest is no longer kept.
    pub async fn chunk(&mut self) -> Option<Result<Arc<[u8]>, NotReplayable>> {
        let next = self.next;
        let is_more = |progress: &Progress| progress.chunks > next || progress.phase != Phase::Begun;
        let phase = self.progress.wait_for(is_more).await.ok()?.phase;
        let chunk = self.answer.content().chunks.get(next).cloned();
        match (chunk, phase) {
            (Some(chunk), _) => {
                self.next += 1;
                Some(Ok(chunk))
            }
            (None, Phase::NotReplayable(why)) => Some(Err(why)),
            (None, _) => None,
        }
    }
}

#[cfg(test)]
mod tests;
