//! Calls without a key: each is a call of its own. The retry of an SDK may take over one whose client has left without the
//! answer, and no other.
//!
//! Promises: N identical requests are N calls. A call is adopted by one retry at most, also over several processes, and
//! never while a client waits for it or once a client has its whole answer. A call that was left and charged is not made
//! again for the retry that finds it: it gets the answer, or is told that it is lost.
//!
//! Costs: nothing in the database for a call whose client stays to the end; an insert when it leaves and an update when the
//! call ends then; a statement for each retry. A retry that finds the same call at work here, with its client still there,
//! waits for a moment, since the end of a connection may be heard after the next request.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use domain::idempotency::IdempotencyKey;
use domain::replays::{Prospect, RETRIED_WITHIN, Unkept};
use domain::usage::HoldId;
use ports::idempotency::AnswerClaim;
use ports::replays::{CallEnd, FoundCall, Left};
use ports::store::{Scope, StoreError};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

use super::running::{Client, Outset, RunningAnswer};
use super::service::{Asked, FIRST_PAUSE, LONGEST_PAUSE, Place, ReplayError, ReplayService, Standing};
use super::ticket::{Entry, Ticket};

/// How long a retry waits for the client of the same call to be known as gone, and how often it looks.
const LEAVING_WITHIN: Duration = Duration::from_millis(250);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A call without a key: what is asked, and this one call of it.
#[derive(Clone)]
pub(super) struct UnkeyedCall {
    pub content: AnswerClaim,
    pub claim: AnswerClaim,
    pub hold_id: HoldId,
}

impl UnkeyedCall {
    /// Its own key holds what is asked, which is stored nowhere, and its hold, which stands in its row.
    pub fn of(content: AnswerClaim, hold_id: HoldId) -> Result<Self, ReplayError> {
        let key = IdempotencyKey::parse(&format!("{} {}", content.key.as_str(), hold_id.0.simple()));
        let key = key.map_err(|why| StoreError::Unexpected(why.to_string()))?;
        let claim = AnswerClaim { key, ..content.clone() };
        Ok(Self { content, claim, hold_id })
    }
}

/// The client of a call without a key. Dropped before it is served, it leaves the call to a retry.
pub struct Waiting(Option<Box<Waits>>);

struct Waits {
    service: Arc<ReplayService>,
    call: UnkeyedCall,
    answer: Option<Arc<RunningAnswer>>,
    /// Whether it was left before, so that it has a row.
    is_adopted: bool,
}

impl Waiting {
    /// Of a call that is found by its key, or not kept.
    pub(super) const NOBODY: Self = Self(None);

    /// The client has the whole answer, or was told why there is none: nobody else gets it.
    pub fn served(&mut self) {
        let Some(waits) = self.0.take() else { return };
        if let Some(answer) = &waits.answer {
            answer.say_of_client(Client::Served);
        }
        if waits.is_adopted {
            let runtime = waits.service.runtime.clone();
            runtime.spawn(async move { waits.service.forget(&waits.call).await });
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(waits) = self.0.take() else { return };
        if let Some(answer) = &waits.answer {
            answer.say_of_client(Client::Leaves);
        }
        let runtime = waits.service.runtime.clone();
        runtime.spawn(async move {
            waits.service.leave(&waits.call, waits.is_adopted, None).await;
            if let Some(answer) = &waits.answer {
                answer.say_of_client(Client::Left);
            }
        });
    }
}

/// What is to be done with a call, and who waits for it.
pub struct Stood {
    pub standing: Standing,
    pub waiting: Waiting,
}

impl ReplayService {
    /// Makes a place for a call of its own, or for a retry finds the call that its client left.
    pub(super) async fn stand_unkeyed(self: &Arc<Self>, asked: Asked) -> Result<Stood, ReplayError> {
        if asked.repeat.is_retry() {
            self.let_clients_leave(&asked.claim).await;
            while let Some(mut waiting) = self.adopt(asked.claim.clone()).await? {
                match self.follow(&mut waiting).await {
                    Ok(Some(standing)) => return Ok(Stood { standing, waiting }),
                    Ok(None) => waiting.served(),
                    Err(error) => {
                        if matches!(error, ReplayError::Unkept(_)) {
                            waiting.served();
                        }
                        return Err(error);
                    }
                }
            }
        }
        self.enter_unkeyed(asked)
    }

    fn enter_unkeyed(self: &Arc<Self>, asked: Asked) -> Result<Stood, ReplayError> {
        let call = UnkeyedCall::of(asked.claim, HoldId(self.randomness.new_id()))?;
        let place = Place::of(&call.claim);
        let mut running = self.running();
        if running.len() >= self.settings.running {
            return Ok(Stood { standing: Standing::NotKept, waiting: Waiting::NOBODY });
        }
        let (fingerprint, rights) = (call.claim.fingerprint.clone(), call.claim.rights.clone());
        let asked_at = Some(Place::of(&call.content));
        let answer = Arc::new(RunningAnswer::new(fingerprint, rights, asked_at, Arc::clone(&self.room)));
        running.insert(place.clone(), Arc::clone(&answer));
        drop(running);
        let ticket = Ticket::new(Entry {
            service: Arc::clone(self),
            place,
            claim: call.claim.clone(),
            repeat: asked.repeat,
            unkeyed: Some(call.clone()),
            hold_id: call.hold_id,
            answer: Arc::clone(&answer),
        });
        let waits = Waits { service: Arc::clone(self), call, answer: Some(answer), is_adopted: false };
        Ok(Stood { standing: Standing::Mine(ticket), waiting: Waiting(Some(Box::new(waits))) })
    }

    /// The next request of an SDK may be here before the end of its last connection is.
    async fn let_clients_leave(&self, content: &AnswerClaim) {
        let (asked, until) = (Place::of(content), Instant::now() + LEAVING_WITHIN);
        while Instant::now() < until {
            let clients: Vec<Client> = {
                let running = self.running();
                running.values().filter(|answer| answer.asked.as_ref() == Some(&asked)).map(|a| a.client()).collect()
            };
            let may_leave = clients.iter().any(|client| matches!(client, Client::Waits | Client::Leaves));
            if !may_leave || clients.contains(&Client::Left) {
                return;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn adopt(self: &Arc<Self>, content: AnswerClaim) -> Result<Option<Waiting>, ReplayError> {
        let service = Arc::clone(self);
        // What was adopted for a client that leaves meanwhile is dropped where it comes out, and so left again.
        let adopting = self.runtime.spawn(async move {
            let mut work = service.store.begin(Scope::SERVICE).await?;
            let hold_id = work.replays().adopt(&content).await?;
            work.commit().await?;
            let Some(hold_id) = hold_id else { return Ok(None) };
            let call = UnkeyedCall::of(content, hold_id)?;
            let answer = service.running().get(&Place::of(&call.claim)).cloned();
            if let Some(answer) = &answer {
                answer.say_of_client(Client::Waits);
            }
            Ok(Some(Waiting(Some(Box::new(Waits { service, call, answer, is_adopted: true })))))
        });
        adopting.await.map_err(|_| unexpected("an adoption ended without a word"))?
    }

    /// What becomes of a call that was adopted; nothing where it came to nothing, so that it may be made.
    async fn follow(self: &Arc<Self>, waiting: &mut Waiting) -> Result<Option<Standing>, ReplayError> {
        let Some(waits) = &waiting.0 else { return Ok(None) };
        let until = Instant::now() + self.settings.call_time;
        if let Some(answer) = &waits.answer {
            let mut listener = answer.listen();
            return match timeout_at(until, listener.outset()).await {
                Ok(Outset::Begun) => Ok(Some(Standing::Running(listener))),
                Ok(Outset::Vacated) => Ok(None),
                Ok(Outset::Unkept(why)) => Err(why.into()),
                Err(_) => Err(ReplayError::InFlight),
            };
        }
        let mut pause = FIRST_PAUSE;
        loop {
            let (service, claim) = (Arc::clone(self), waits.call.claim.clone());
            let finding = self.runtime.spawn(async move {
                let mut work = service.store.begin(Scope::SERVICE).await?;
                let found = work.replays().find(&claim).await?;
                work.commit().await?;
                Ok::<_, StoreError>(found)
            });
            match finding.await.map_err(|_| unexpected("a search ended without a word"))?? {
                None | Some(FoundCall::OtherBody | FoundCall::BeyondRights) => return Ok(None),
                Some(FoundCall::Ended(CallEnd::Answered(answer))) => return Ok(Some(Standing::Kept(answer))),
                Some(FoundCall::Ended(CallEnd::Unkept(why))) => return Err(why.into()),
                Some(FoundCall::Awaited { awaited, .. }) => match awaited.prospect() {
                    Prospect::Vacant => return Ok(None),
                    Prospect::Lost => return Err(Unkept::Lost.into()),
                    Prospect::UnderWay if Instant::now() >= until => return Err(ReplayError::InFlight),
                    Prospect::UnderWay => {}
                },
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Writes down that a call was left, or how one ended that was left before.
    pub(super) async fn leave(&self, call: &UnkeyedCall, is_again: bool, end: Option<&CallEnd>) {
        let UnkeyedCall { content, claim, hold_id } = call;
        let call_time = TimeDelta::from_std(self.settings.call_time).unwrap_or(RETRIED_WITHIN);
        let keep = if end.is_some() { RETRIED_WITHIN } else { call_time + RETRIED_WITHIN };
        let left = async {
            let mut work = self.store.begin(Scope::SERVICE).await?;
            if is_again {
                work.replays().leave_again(claim, content, *hold_id).await?;
            } else {
                work.replays().leave(claim, content, Left { hold_id: *hold_id, end, keep }).await?;
            }
            work.commit().await
        };
        if let Err(error) = left.await {
            debug!(%error, call = %hold_id.0, "a call that its client left could not be kept; a retry makes it anew");
        }
    }

    pub(super) async fn forget(&self, call: &UnkeyedCall) {
        let forgotten = async {
            let mut work = self.store.begin(Scope::SERVICE).await?;
            work.replays().forget(&call.claim, call.hold_id).await?;
            work.commit().await
        };
        if let Err(error) = forgotten.await {
            debug!(%error, call = %call.hold_id.0, "a call that was served could not be forgotten; its time ends it");
        }
    }
}

impl Entry {
    /// The end of a call without a key: kept where its client has left, and else nobody's any more.
    pub(super) async fn end_unkeyed(self, call: &UnkeyedCall, is_whole: bool) {
        if !self.answer.is_served().await {
            let end = self.outcome();
            if !is_whole && self.came_to_nothing().await {
                self.service.forget(call).await;
            } else {
                self.service.leave(call, false, Some(&end)).await;
            }
            // Whoever adopted it meanwhile here has it by now, or has left it again.
            if self.answer.is_served().await {
                self.service.forget(call).await;
            }
        }
        self.service.leave_place(&self.place, &self.answer);
    }

    /// A call without a key that was refused, failed or broke before anything of its answer was there.
    pub(super) async fn let_go_unkeyed(self, call: &UnkeyedCall) {
        // Whoever waits is told by the refusal itself.
        if self.answer.has_listeners() || !self.answer.is_served().await {
            let is_nothing = self.came_to_nothing().await;
            if is_nothing {
                self.answer.vacate();
            } else {
                self.answer.forgo(Unkept::Lost);
            }
            if self.answer.is_served().await || is_nothing {
                self.service.forget(call).await;
            } else {
                self.service.leave(call, false, Some(&CallEnd::Unkept(Unkept::Lost))).await;
                if self.answer.is_served().await {
                    self.service.forget(call).await;
                }
            }
        }
        self.service.leave_place(&self.place, &self.answer);
    }
}

fn unexpected(why: &str) -> ReplayError {
    ReplayError::Store(StoreError::Unexpected(why.to_owned()))
}
