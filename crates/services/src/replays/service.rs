//! The service of replays: of all requests for the same call under one idempotency key, one makes it and the others get
//! its answer. Calls without a key are in `unkeyed`.
//!
//! Promises: a call is claimed before it is made, by a row that only one process can write, so it is made once, however
//! many requests come to however many processes. A call that was refused or came to nothing leaves no trace. A waiting
//! client that hangs up leaves nothing behind.
//!
//! Costs: a transaction of one statement before a call with a key and one after it; nothing for calls that are not
//! kept. A repeat in the same process reads memory while the call runs, else two statements. A repeat on another
//! process polls the database while the call runs, with growing pauses.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use domain::idempotency::IdempotencyKey;
use domain::replays::{AwaitedState, NotReplayable, RetryKind};
use domain::usage::{HoldId, HoldStatus};
use domain::users::UserId;
use ports::idempotency::AnswerClaim;
use ports::randomness::Randomness;
use ports::replays::{CallEnd, FoundCall, KeptAnswer};
use ports::store::{Scope, Store, StoreError};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout_at};

use super::claim::{CallClaim, Entry};
use super::running::{AnswerListener, Room, RunningAnswer, StartState};
use super::unkeyed::{RetryPlace, WaitingRetry};
use crate::conflicts::retry_conflicts;

/// The pauses of a repeat between two reads of a call of another process.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(20);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How many expired answers one sweep deletes at most. They are long, so fewer than of others.
const SWEPT_AT_ONCE: u64 = 200;

/// The constraint that a row violates if its user is gone.
const NO_USER: &str = "fk_ai_answers_user";

#[derive(Clone, Copy, Debug)]
pub struct ReplaySettings {
    /// How long the answer to a call with an idempotency key is kept.
    pub keep: TimeDelta,
    /// How long any call may take.
    pub call_time: Duration,
    /// How many kept answers may run at once.
    pub running: usize,
    /// How many bytes of all running answers are in memory at once.
    pub bytes: usize,
}

/// A call that may be repeated.
#[derive(Clone, Debug)]
pub struct ReplayRequest {
    pub claim: AnswerClaim,
    pub repeat: RetryKind,
}

/// What is to be done with a request.
pub enum ClaimState {
    /// The call is to be made, and its answer written to the claim.
    Mine(CallClaim),
    /// It is being answered in this process.
    Running(AnswerListener),
    Kept(KeptAnswer),
    /// The call is to be made, and not kept: too many run, and the request has no idempotency key.
    NotKept,
}

#[derive(Clone, Debug, Error)]
pub enum ReplayError {
    #[error("this idempotency key was used with another body")]
    OtherBody,
    #[error("the call with this idempotency key is still at work")]
    InFlight,
    #[error("this idempotency key was used by a credential that may do more than yours")]
    BeyondRights,
    #[error(transparent)]
    NotReplayable(#[from] NotReplayable),
    #[error("too many answers are running that have to be kept")]
    Busy,
    #[error("there is no such user")]
    UnknownUser,
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for ReplayError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Constraint { constraint } if constraint == NO_USER => Self::UnknownUser,
            other => Self::Store(other),
        }
    }
}

/// Identifies a call among those that run in this process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    caller: UserId,
    route: String,
    key: IdempotencyKey,
}

impl Place {
    pub fn of(claim: &AnswerClaim) -> Self {
        Self { caller: claim.caller, route: claim.route.clone(), key: claim.key.clone() }
    }
}

pub struct ReplayService {
    pub(super) store: Arc<dyn Store>,
    /// The runtime of the process: what is recorded of a call outlives its client.
    pub(super) runtime: Handle,
    pub(super) randomness: Arc<dyn Randomness>,
    pub(super) settings: ReplaySettings,
    running: Mutex<HashMap<Place, Arc<RunningAnswer>>>,
    pub(super) room: Arc<Room>,
}

enum Entered {
    First(CallClaim),
    Behind(AnswerListener),
    /// Behind a call with another body.
    BehindAnother(AnswerListener),
    /// Behind a call of a caller with more rights.
    BehindAStronger,
    Full,
}

enum Claimed {
    Fresh(CallClaim),
    Kept(KeptAnswer),
    /// Another process makes it.
    Elsewhere(CallClaim),
}

impl ReplayService {
    /// To be called within the runtime of the process.
    pub fn new(store: Arc<dyn Store>, randomness: Arc<dyn Randomness>, settings: ReplaySettings) -> Self {
        let room = Arc::new(Room::of(settings.bytes));
        Self { store, runtime: Handle::current(), randomness, settings, running: Mutex::default(), room }
    }

    /// Claims the call, or waits until the answer to another request begins, but no longer than any call takes.
    pub async fn stand(self: &Arc<Self>, asked: ReplayRequest) -> Result<RetryPlace, ReplayError> {
        if !asked.repeat.is_keyed() {
            return self.stand_unkeyed(asked).await;
        }
        let standing = self.stand_keyed(asked).await?;
        Ok(RetryPlace { standing, waiting: WaitingRetry::NOBODY })
    }

    async fn stand_keyed(self: &Arc<Self>, asked: ReplayRequest) -> Result<ClaimState, ReplayError> {
        let until = Instant::now() + self.settings.call_time;
        loop {
            let call_claim = match self.enter(&asked) {
                Entered::First(call_claim) => call_claim,
                // If that call is refused after all, its place is free for this body.
                Entered::BehindAnother(mut listener) => match timeout_at(until, listener.start_state()).await {
                    Ok(StartState::Vacated) => continue,
                    Ok(StartState::Begun | StartState::NotReplayable(_)) | Err(_) => {
                        return Err(ReplayError::OtherBody);
                    }
                },
                Entered::BehindAStronger => return Err(ReplayError::BeyondRights),
                Entered::Full => return Err(ReplayError::Busy),
                Entered::Behind(mut listener) => match timeout_at(until, listener.start_state()).await {
                    Ok(StartState::Begun) => return Ok(ClaimState::Running(listener)),
                    Ok(StartState::Vacated) => continue,
                    Ok(StartState::NotReplayable(why)) => return Err(why.into()),
                    Err(_) => return Err(ReplayError::InFlight),
                },
            };
            return self.claim(call_claim, until).await;
        }
    }

    /// Claims it in the database, and waits while another process has it.
    async fn claim(self: &Arc<Self>, mut call_claim: CallClaim, until: Instant) -> Result<ClaimState, ReplayError> {
        let mut pause = FIRST_PAUSE;
        loop {
            let service = Arc::clone(self);
            // A client that hangs up does not cancel the transaction; the claim is then dropped where that ends.
            let claiming = self.runtime.spawn(async move { service.claim_once(call_claim).await });
            let lost = |_| ReplayError::Store(StoreError::Unexpected("a claim ended without a word".to_owned()));
            call_claim = match claiming.await.map_err(lost)?? {
                Claimed::Fresh(call_claim) => return Ok(ClaimState::Mine(call_claim)),
                Claimed::Kept(answer) => return Ok(ClaimState::Kept(answer)),
                Claimed::Elsewhere(_) if Instant::now() >= until => return Err(ReplayError::InFlight),
                Claimed::Elsewhere(call_claim) => call_claim,
            };
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn claim_once(&self, mut call_claim: CallClaim) -> Result<Claimed, ReplayError> {
        let Some((asked, hold_id)) = call_claim.entry().map(|entry| (entry.asked(), entry.hold_id)) else {
            return Err(StoreError::Unexpected("a claim was used after its end".to_owned()).into());
        };
        // Set before the claim is made, since a commit may succeed without a reply.
        call_claim.is_claimed = true;
        match retry_conflicts(|| self.look(&asked, hold_id)).await? {
            None => Ok(Claimed::Fresh(call_claim)),
            Some(found) => {
                call_claim.is_claimed = false;
                match found {
                    Found::Ended(CallEnd::Answered(answer)) => Ok(Claimed::Kept(answer)),
                    Found::Ended(CallEnd::NotReplayable(why)) => Err(why.into()),
                    Found::OtherBody => Err(ReplayError::OtherBody),
                    Found::BeyondRights => Err(ReplayError::BeyondRights),
                    Found::UnderWay => Ok(Claimed::Elsewhere(call_claim)),
                }
            }
        }
    }

    /// Claims the place, or returns what is in it.
    async fn look(&self, asked: &ReplayRequest, hold_id: HoldId) -> Result<Option<Found>, StoreError> {
        let ReplayRequest { claim, .. } = asked;
        let mut work = self.store.begin(Scope::SERVICE).await?;
        if work.replays().claim(claim, hold_id, self.settings.keep).await? {
            work.commit().await?;
            return Ok(None);
        }
        let found = match work.replays().find(claim).await? {
            // It was released just now.
            None => Found::UnderWay,
            Some(FoundCall::OtherBody) => Found::OtherBody,
            Some(FoundCall::BeyondRights) => Found::BeyondRights,
            Some(FoundCall::Ended(end)) => Found::Ended(end),
            Some(FoundCall::Awaited { hold_id, awaited }) => match awaited.state() {
                AwaitedState::UnderWay => Found::UnderWay,
                AwaitedState::Lost => Found::Ended(CallEnd::NotReplayable(NotReplayable::Lost)),
                AwaitedState::Vacant => {
                    work.replays().abandon(claim, hold_id).await?;
                    Found::UnderWay
                }
            },
        };
        work.commit().await?;
        Ok(Some(found))
    }

    fn enter(self: &Arc<Self>, asked: &ReplayRequest) -> Entered {
        let ReplayRequest { claim, repeat } = asked;
        let place = Place::of(claim);
        let mut running = self.running();
        if let Some(answer) = running.get(&place) {
            let is_same = answer.fingerprint == claim.fingerprint;
            if is_same && !claim.rights.cover(&answer.rights) {
                return Entered::BehindAStronger;
            }
            let listener = answer.listen();
            return if is_same { Entered::Behind(listener) } else { Entered::BehindAnother(listener) };
        }
        if running.len() >= self.settings.running {
            return Entered::Full;
        }
        let (fingerprint, rights) = (claim.fingerprint.clone(), claim.rights.clone());
        let answer = Arc::new(RunningAnswer::new(fingerprint, rights, None, Arc::clone(&self.room)));
        running.insert(place.clone(), Arc::clone(&answer));
        drop(running);
        Entered::First(CallClaim::new(Entry {
            service: Arc::clone(self),
            place,
            claim: claim.clone(),
            repeat: repeat.clone(),
            unkeyed: None,
            hold_id: HoldId(self.randomness.new_id()),
            answer,
        }))
    }

    /// Removes an answer from those that run here, unless a later one has its place.
    pub(super) fn leave_place(&self, place: &Place, answer: &Arc<RunningAnswer>) {
        let mut running = self.running();
        if running.get(place).is_some_and(|there| Arc::ptr_eq(there, answer)) {
            running.remove(place);
        }
    }

    pub(super) async fn find_hold(&self, hold_id: HoldId) -> Result<Option<HoldStatus>, StoreError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let status = work.replays().find_hold(hold_id).await?;
        work.commit().await?;
        Ok(status)
    }

    /// Deletes expired answers, a bounded number of them; returns how many.
    pub async fn sweep(&self) -> Result<u64, StoreError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let swept = work.replays().delete_expired(SWEPT_AT_ONCE).await?;
        work.commit().await?;
        Ok(swept)
    }

    /// For shutdown: waits until what has ended is recorded, at most `patience`.
    pub async fn drain(&self, patience: Duration) {
        let written = async {
            while !self.running().is_empty() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(patience, written).await.is_err() {
            tracing::warn!("answers of calls were not written down at the stop; a repeat is told that they are lost");
        }
    }

    pub(super) fn running(&self) -> MutexGuard<'_, HashMap<Place, Arc<RunningAnswer>>> {
        // No step under the lock can leave the map half changed.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is in the place of a call that cannot be claimed.
enum Found {
    OtherBody,
    BeyondRights,
    Ended(CallEnd),
    UnderWay,
}
