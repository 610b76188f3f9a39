//! The service of replays: of all who ask for the same call under one key, one makes it and the others get its answer.
//! Calls without a key are in `unkeyed`.
//!
//! Promises: a call is claimed before it is made, by a row that only one process can write, so it is made once, however
//! many ask on however many processes. A call that was refused or came to nothing leaves no trace. Whoever waits and hangs
//! up leaves nothing behind.
//!
//! Costs: a transaction of one statement before a call with a key and one after it; nothing for calls that are not kept. A repeat
//! in the same process reads memory while the call runs, else two statements. A repeat on another process asks the
//! database again and again while the call runs, less and less often.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use domain::idempotency::IdempotencyKey;
use domain::replays::{Prospect, Repeat, Unkept};
use domain::usage::{HoldId, HoldStatus};
use domain::users::UserId;
use ports::idempotency::AnswerClaim;
use ports::randomness::Randomness;
use ports::replays::{CallEnd, FoundCall, KeptAnswer};
use ports::store::{Scope, Store, StoreError};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout_at};

use super::running::{Listener, Outset, Room, RunningAnswer};
use super::ticket::{Entry, Ticket};
use super::unkeyed::{Stood, Waiting};
use crate::conflicts::retry_conflicts;

/// How long a repeat waits between two looks at a call of another process.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(20);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How many expired answers one sweep removes at most. They are long, so fewer than of others.
const SWEPT_AT_ONCE: u64 = 200;

/// The row of a user who is gone cannot be written.
const NO_USER: &str = "fk_ai_answers_user";

#[derive(Clone, Copy, Debug)]
pub struct ReplaySettings {
    /// How long the answer to a keyed call is kept.
    pub keep: TimeDelta,
    /// How long any call may take.
    pub call_time: Duration,
    /// How many answers may run at once that are kept.
    pub running: usize,
    /// How many bytes of them all are in memory at once.
    pub bytes: usize,
}

/// A call that may be asked for again.
#[derive(Clone, Debug)]
pub struct Asked {
    pub claim: AnswerClaim,
    pub repeat: Repeat,
}

/// What is to be done with it.
pub enum Standing {
    /// To be made, and written to the ticket.
    Mine(Ticket),
    /// It is being answered here.
    Running(Listener),
    Kept(KeptAnswer),
    /// To be made, and not kept: too many run, and nobody named a key.
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
    Unkept(#[from] Unkept),
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

/// Where a call stands among those that run here.
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
    /// The process's own: what is written down of a call outlives whoever asked for it.
    pub(super) runtime: Handle,
    pub(super) randomness: Arc<dyn Randomness>,
    pub(super) settings: ReplaySettings,
    running: Mutex<HashMap<Place, Arc<RunningAnswer>>>,
    pub(super) room: Arc<Room>,
}

enum Entered {
    First(Ticket),
    Behind(Listener),
    /// Behind a call with another body.
    BehindAnother(Listener),
    /// Behind a call of somebody who may do more.
    BehindAStronger,
    Full,
}

enum Claimed {
    Fresh(Ticket),
    Kept(KeptAnswer),
    /// Another process makes it.
    Elsewhere(Ticket),
}

impl ReplayService {
    /// Within the runtime of the process.
    pub fn new(store: Arc<dyn Store>, randomness: Arc<dyn Randomness>, settings: ReplaySettings) -> Self {
        let room = Arc::new(Room::of(settings.bytes));
        Self { store, runtime: Handle::current(), randomness, settings, running: Mutex::default(), room }
    }

    /// Takes the call, or waits until somebody else's answer begins. Waits for no longer than any call takes.
    pub async fn stand(self: &Arc<Self>, asked: Asked) -> Result<Stood, ReplayError> {
        if !asked.repeat.is_keyed() {
            return self.stand_unkeyed(asked).await;
        }
        let standing = self.stand_keyed(asked).await?;
        Ok(Stood { standing, waiting: Waiting::NOBODY })
    }

    async fn stand_keyed(self: &Arc<Self>, asked: Asked) -> Result<Standing, ReplayError> {
        let until = Instant::now() + self.settings.call_time;
        loop {
            let ticket = match self.enter(&asked) {
                Entered::First(ticket) => ticket,
                // A call that is refused after all gives its place to another body.
                Entered::BehindAnother(mut listener) => match timeout_at(until, listener.outset()).await {
                    Ok(Outset::Vacated) => continue,
                    Ok(Outset::Begun | Outset::Unkept(_)) | Err(_) => return Err(ReplayError::OtherBody),
                },
                Entered::BehindAStronger => return Err(ReplayError::BeyondRights),
                Entered::Full => return Err(ReplayError::Busy),
                Entered::Behind(mut listener) => match timeout_at(until, listener.outset()).await {
                    Ok(Outset::Begun) => return Ok(Standing::Running(listener)),
                    Ok(Outset::Vacated) => continue,
                    Ok(Outset::Unkept(why)) => return Err(why.into()),
                    Err(_) => return Err(ReplayError::InFlight),
                },
            };
            return self.claim(ticket, until).await;
        }
    }

    /// Claims it in the database, waiting for whoever has it there.
    async fn claim(self: &Arc<Self>, mut ticket: Ticket, until: Instant) -> Result<Standing, ReplayError> {
        let mut pause = FIRST_PAUSE;
        loop {
            let service = Arc::clone(self);
            // A transaction is not cut short by a client that hangs up; the ticket is then dropped where it ends.
            let claiming = self.runtime.spawn(async move { service.claim_once(ticket).await });
            let lost = |_| ReplayError::Store(StoreError::Unexpected("a claim ended without a word".to_owned()));
            ticket = match claiming.await.map_err(lost)?? {
                Claimed::Fresh(ticket) => return Ok(Standing::Mine(ticket)),
                Claimed::Kept(answer) => return Ok(Standing::Kept(answer)),
                Claimed::Elsewhere(_) if Instant::now() >= until => return Err(ReplayError::InFlight),
                Claimed::Elsewhere(ticket) => ticket,
            };
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn claim_once(&self, mut ticket: Ticket) -> Result<Claimed, ReplayError> {
        let Some((asked, hold_id)) = ticket.entry().map(|entry| (entry.asked(), entry.hold_id)) else {
            return Err(StoreError::Unexpected("a ticket was claimed after its end".to_owned()).into());
        };
        // Before it is: a commit may be done of which nobody hears.
        ticket.is_claimed = true;
        match retry_conflicts(|| self.look(&asked, hold_id)).await? {
            None => Ok(Claimed::Fresh(ticket)),
            Some(found) => {
                ticket.is_claimed = false;
                match found {
                    Found::Ended(CallEnd::Answered(answer)) => Ok(Claimed::Kept(answer)),
                    Found::Ended(CallEnd::Unkept(why)) => Err(why.into()),
                    Found::OtherBody => Err(ReplayError::OtherBody),
                    Found::BeyondRights => Err(ReplayError::BeyondRights),
                    Found::UnderWay => Ok(Claimed::Elsewhere(ticket)),
                }
            }
        }
    }

    /// Claims the place, or says what is in it.
    async fn look(&self, asked: &Asked, hold_id: HoldId) -> Result<Option<Found>, StoreError> {
        let Asked { claim, .. } = asked;
        let mut work = self.store.begin(Scope::SERVICE).await?;
        if work.replays().claim(claim, hold_id, self.settings.keep).await? {
            work.commit().await?;
            return Ok(None);
        }
        let found = match work.replays().find(claim).await? {
            // It was given back just now.
            None => Found::UnderWay,
            Some(FoundCall::OtherBody) => Found::OtherBody,
            Some(FoundCall::BeyondRights) => Found::BeyondRights,
            Some(FoundCall::Ended(end)) => Found::Ended(end),
            Some(FoundCall::Awaited { hold_id, awaited }) => match awaited.prospect() {
                Prospect::UnderWay => Found::UnderWay,
                Prospect::Lost => Found::Ended(CallEnd::Unkept(Unkept::Lost)),
                Prospect::Vacant => {
                    work.replays().abandon(claim, hold_id).await?;
                    Found::UnderWay
                }
            },
        };
        work.commit().await?;
        Ok(Some(found))
    }

    fn enter(self: &Arc<Self>, asked: &Asked) -> Entered {
        let Asked { claim, repeat } = asked;
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
        Entered::First(Ticket::new(Entry {
            service: Arc::clone(self),
            place,
            claim: claim.clone(),
            repeat: repeat.clone(),
            unkeyed: None,
            hold_id: HoldId(self.randomness.new_id()),
            answer,
        }))
    }

    /// Takes an answer from among those that run here, unless a later one has its place.
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

    /// Removes answers past their time, a bounded number of them; says how many.
    pub async fn sweep(&self) -> Result<u64, StoreError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let swept = work.replays().delete_expired(SWEPT_AT_ONCE).await?;
        work.commit().await?;
        Ok(swept)
    }

    /// For the stop: waits until what has ended is written down, at most `patience`.
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
        // Nothing is done under the lock that could leave the map half changed.
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
