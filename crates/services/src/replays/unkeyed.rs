//! Calls without an idempotency key: each is a call of its own. The retry of an SDK may take over one whose client has
//! left without the answer, and no other.
//!
//! Promises: N identical requests are N calls. A call is adopted by one retry at most, also over several processes, and
//! never while a client waits for it or once a client has its whole answer. A call that was left and charged is not
//! made again for the retry that finds it: the retry gets the answer, or the error that it is lost.
//!
//! Costs: nothing in the database for a call whose client stays to the end; an insert when it leaves and an update when
//! the call ends then; a statement for each retry. A retry that finds the same call running here, with its client still
//! there, waits for a moment, since the end of a connection may be noticed after the next request.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use domain::idempotency::IdempotencyKey;
use domain::replays::{AwaitedState, NotReplayable, RETRIED_WITHIN};
use domain::usage::HoldId;
use ports::idempotency::AnswerClaim;
use ports::replays::{CallEnd, FoundCall, LeftCall};
use ports::store::{Scope, StoreError};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

use super::claim::{CallClaim, Entry};
use super::running::{Client, RunningAnswer, StartState};
use super::service::{ClaimState, FIRST_PAUSE, LONGEST_PAUSE, Place, ReplayError, ReplayRequest, ReplayService};

/// How long a retry waits for the client of the same call to leave, and how often it looks.
const LEAVING_WITHIN: Duration = Duration::from_millis(250);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A call without an idempotency key: its content, and this one call of it.
#[derive(Clone)]
pub(super) struct UnkeyedCall {
    pub content: AnswerClaim,
    pub claim: AnswerClaim,
    pub hold_id: HoldId,
}

impl UnkeyedCall {
    /// Its claim's key consists of the content's key, which is not stored, and the id of its reservation, which is in
    /// its row.
    pub fn of(content: AnswerClaim, hold_id: HoldId) -> Result<Self, ReplayError> {
        let key = IdempotencyKey::parse(&format!("{} {}", content.key.as_str(), hold_id.0.simple()));
        let key = key.map_err(|why| StoreError::Unexpected(why.to_string()))?;
        let claim = AnswerClaim { key, ..content.clone() };
        Ok(Self { content, claim, hold_id })
    }
}

/// The client of a call without an idempotency key. Dropped before it is served, it leaves the call to a retry.
pub struct WaitingRetry(Option<Box<Waits>>);

struct Waits {
    service: Arc<ReplayService>,
    call: UnkeyedCall,
    answer: Option<Arc<RunningAnswer>>,
    /// Whether the call was left before, so that it has a row.
    is_adopted: bool,
}

impl WaitingRetry {
    /// For a call that is found by its idempotency key, or not kept.
    pub(super) const NOBODY: Self = Self(None);

    /// The client has the whole answer, or the reason why there is none: no retry gets it.
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

impl Drop for WaitingRetry {
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

/// What is to be done with a request, and its waiting client.
pub struct RetryPlace {
    pub standing: ClaimState,
    pub waiting: WaitingRetry,
}

impl ReplayService {
    /// Makes a place for a call of its own, or for a retry finds the call that its client left.
    pub(super) async fn stand_unkeyed(self: &Arc<Self>, asked: ReplayRequest) -> Result<RetryPlace, ReplayError> {
        if asked.repeat.is_retry() {
            self.let_clients_leave(&asked.claim).await;
            while let Some(mut waiting) = self.adopt(asked.claim.clone()).await? {
                match self.follow(&mut waiting).await {
                    Ok(Some(standing)) => return Ok(RetryPlace { standing, waiting }),
                    Ok(None) => waiting.served(),
                    Err(error) => {
                        if matches!(error, ReplayError::NotReplayable(_)) {
                            waiting.served();
                        }
                        return Err(error);
                    }
                }
            }
        }
        self.enter_unkeyed(asked)
    }

    fn enter_unkeyed(self: &Arc<Self>, asked: ReplayRequest) -> Result<RetryPlace, ReplayError> {
        let call = UnkeyedCall::of(asked.claim, HoldId(self.randomness.new_id()))?;
        let place = Place::of(&call.claim);
        let mut running = self.running();
        if running.len() >= self.settings.running {
            return Ok(RetryPlace { standing: ClaimState::NotKept, waiting: WaitingRetry::NOBODY });
        }
        let (fingerprint, rights) = (call.claim.fingerprint.clone(), call.claim.rights.clone());
        let asked_at = Some(Place::of(&call.content));
        let answer = Arc::new(RunningAnswer::new(fingerprint, rights, asked_at, Arc::clone(&self.room)));
        running.insert(place.clone(), Arc::clone(&answer));
        drop(running);
        let call_claim = CallClaim::new(Entry {
            service: Arc::clone(self),
            place,
            claim: call.claim.clone(),
            repeat: asked.repeat,
            unkeyed: Some(call.clone()),
            hold_id: call.hold_id,
            answer: Arc::clone(&answer),
        });
        let waits = Waits { service: Arc::clone(self), call, answer: Some(answer), is_adopted: false };
        Ok(RetryPlace { standing: ClaimState::Mine(call_claim), waiting: WaitingRetry(Some(Box::new(waits))) })
    }

    /// The next request of an SDK may arrive before the end of its last connection is noticed.
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

    async fn adopt(self: &Arc<Self>, content: AnswerClaim) -> Result<Option<WaitingRetry>, ReplayError> {
        let service = Arc::clone(self);
        // If the client leaves meanwhile, the adopted call is dropped with the task's result, and so left again.
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
            Ok(Some(WaitingRetry(Some(Box::new(Waits { service, call, answer, is_adopted: true })))))
        });
        adopting.await.map_err(|_| unexpected("an adoption ended without a word"))?
    }

    /// The state of an adopted call; `None` where it came to nothing, so that it may be made.
    async fn follow(self: &Arc<Self>, waiting: &mut WaitingRetry) -> Result<Option<ClaimState>, ReplayError> {
        let Some(waits) = &waiting.0 else { return Ok(None) };
        let until = Instant::now() + self.settings.call_time;
        if let Some(answer) = &waits.answer {
            let mut listener = answer.listen();
            return match timeout_at(until, listener.start_state()).await {
                Ok(StartState::Begun) => Ok(Some(ClaimState::Running(listener))),
                Ok(StartState::Vacated) => Ok(None),
                Ok(StartState::NotReplayable(why)) => Err(why.into()),
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
                Some(FoundCall::Ended(CallEnd::Answered(answer))) => return Ok(Some(ClaimState::Kept(answer))),
                Some(FoundCall::Ended(CallEnd::NotReplayable(why))) => return Err(why.into()),
                Some(FoundCall::Awaited { awaited, .. }) => match awaited.state() {
                    AwaitedState::Vacant => return Ok(None),
                    AwaitedState::Lost => return Err(NotReplayable::Lost.into()),
                    AwaitedState::UnderWay if Instant::now() >= until => return Err(ReplayError::InFlight),
                    AwaitedState::UnderWay => {}
                },
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Records that a call was left, or how one ended that was left before.
    pub(super) async fn leave(&self, call: &UnkeyedCall, is_again: bool, end: Option<&CallEnd>) {
        let UnkeyedCall { content, claim, hold_id } = call;
        let call_time = TimeDelta::from_std(self.settings.call_time).unwrap_or(RETRIED_WITHIN);
        let keep = if end.is_some() { RETRIED_WITHIN } else { call_time + RETRIED_WITHIN };
        let left = async {
            let mut work = self.store.begin(Scope::SERVICE).await?;
            if is_again {
                work.replays().leave_again(claim, content, *hold_id).await?;
            } else {
                work.replays().leave(claim, content, LeftCall { hold_id: *hold_id, end, keep }).await?;
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
    /// The end of a call without an idempotency key: it is stored where its client has left, and dropped otherwise.
    pub(super) async fn end_unkeyed(self, call: &UnkeyedCall, is_whole: bool) {
        if !self.answer.is_served().await {
            let end = self.outcome();
            if !is_whole && self.came_to_nothing().await {
                self.service.forget(call).await;
            } else {
                self.service.leave(call, false, Some(&end)).await;
            }
            // A retry that adopted it here meanwhile is served by now, or has left it again.
            if self.answer.is_served().await {
                self.service.forget(call).await;
            }
        }
        self.service.leave_place(&self.place, &self.answer);
    }

    /// A call without an idempotency key that was refused, failed or broke off before any of its answer arrived.
    pub(super) async fn let_go_unkeyed(self, call: &UnkeyedCall) {
        // A waiting client gets the refusal itself.
        if self.answer.has_listeners() || !self.answer.is_served().await {
            let is_nothing = self.came_to_nothing().await;
            if is_nothing {
                self.answer.vacate();
            } else {
                self.answer.forgo(NotReplayable::Lost);
            }
            if self.answer.is_served().await || is_nothing {
                self.service.forget(call).await;
            } else {
                self.service.leave(call, false, Some(&CallEnd::NotReplayable(NotReplayable::Lost))).await;
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
