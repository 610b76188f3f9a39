//! Reservations of a client: made, extended, settled in time or late, released, or left to expire.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::chances::Dice;
use super::client::Client;
use super::doors::Heard;
use super::ground::count;
use super::journal::{End, Ended, Hold, Outcome};

const TTL_SECONDS: i64 = 60;

/// For reservations that are left, or settled after they expired. The expiry job runs every five seconds.
const SHORT_TTL_SECONDS: i64 = 1;

const RETRY_AFTER: Duration = Duration::from_millis(300);

/// A reservation with its planned end.
pub fn planned(dice: &mut Dice, amount: i64) -> Hold {
    let more = |dice: &mut Dice, most: u64| i64::try_from(dice.below(most)).unwrap();
    let (end, ttl_seconds) = match dice.below(20) {
        0..3 => (End::Settle(amount), TTL_SECONDS),
        3..7 => (End::Settle(more(dice, amount.unsigned_abs())), TTL_SECONDS),
        7..11 => (End::Settle(amount + 1 + more(dice, 3)), TTL_SECONDS),
        11..15 => (End::Release, TTL_SECONDS),
        15..17 => (End::Settle(amount), SHORT_TTL_SECONDS),
        _ => (End::Leave, SHORT_TTL_SECONDS),
    };
    let extend_to = dice.once_in(4).then(|| amount + more(dice, 4));
    Hold { ttl_seconds, end, extend_to, amounts: vec![amount], doubts: 0, ended: None }
}

impl Client {
    pub(super) async fn reserve(&mut self) {
        let place = self.note(false, |dice, amount| Some(planned(dice, amount)));
        self.send(place).await;
    }

    /// Schedules the end of a granted reservation: soon, or late if it is to expire before it is settled.
    pub(super) fn plan_end(&mut self, place: usize) {
        let Some(hold) = &self.journal[place].hold else { return };
        let wait = match (hold.end, hold.ttl_seconds) {
            (End::Leave, _) if hold.extend_to.is_none() => return,
            (End::Settle(_), SHORT_TTL_SECONDS) if hold.extend_to.is_none() => 1_500 + self.dice.below(4_000),
            _ => self.dice.below(800),
        };
        self.held.push((place, Instant::now() + Duration::from_millis(wait)));
    }

    pub(super) async fn end_hold(&mut self, place: usize) {
        let is_extended = self.journal[place].hold.as_ref().is_some_and(|hold| hold.extend_to.is_some());
        if is_extended && !self.extend(place).await {
            return self.held.push((place, Instant::now() + RETRY_AFTER));
        }
        let is_left = self.journal[place].hold.as_ref().is_some_and(|hold| hold.end == End::Leave);
        if !is_left && !self.say_end(place).await {
            self.held.push((place, Instant::now() + RETRY_AFTER));
        }
    }

    /// Returns whether the reserved amount is certain.
    async fn extend(&mut self, place: usize) -> bool {
        let Some(hold) = &self.journal[place].hold else { return true };
        let (Some(amount), ttl_seconds) = (hold.extend_to, hold.ttl_seconds) else { return true };
        let body = json!({ "amount": amount, "ttl_seconds": ttl_seconds });
        let heard = self.change(place, "extend", Some(&body)).await;
        let asked = &mut self.journal[place];
        let Some(hold) = &mut asked.hold else { return true };
        match heard {
            Some(Heard { status: 200, body, .. }) => {
                hold.amounts = vec![amount];
                if body["held"] != amount || body["status"] != "pending" {
                    self.ground.find(format!("extended to {amount}, and answered with {body}: {asked:?}"));
                }
            }
            // The refused extension may have been granted to an earlier attempt without a response.
            Some(Heard { status: 402 | 429, .. }) => {}
            Some(heard) if heard.status == 409 && heard.code() == "reservation_expired" => {}
            Some(heard) if heard.says_that_nothing_happened() => return false,
            None | Some(Heard { status: 408 | 502 | 503 | 504, .. }) => {
                if !hold.amounts.contains(&amount) {
                    hold.amounts.push(amount);
                }
                return false;
            }
            Some(Heard { status, body, .. }) => {
                self.ground.find(format!("{status} {body} to an extension of {asked:?}"));
                return false;
            }
        }
        if let Some(hold) = &mut self.journal[place].hold {
            hold.extend_to = None;
        }
        true
    }

    /// Settles or releases, for the first time or again. Returns whether that is complete.
    pub(super) async fn say_end(&mut self, place: usize) -> bool {
        let Some(hold) = &self.journal[place].hold else { return true };
        let (action, body, status) = match hold.end {
            End::Settle(amount) => ("settle", Some(json!({ "amount": amount })), "settled"),
            End::Release => ("release", None, "released"),
            End::Leave => return true,
        };
        let heard = self.change(place, action, body.as_ref()).await;
        let asked = &mut self.journal[place];
        let (end, Some(hold)) = (body, &mut asked.hold) else { return true };
        let (body, replayed) = match heard {
            Some(Heard { status: 200, body, replayed }) => (body, replayed),
            Some(heard) if heard.says_that_nothing_happened() => return false,
            None | Some(Heard { status: 408 | 502 | 503 | 504, .. }) => {
                hold.doubts += 1;
                return false;
            }
            Some(Heard { status, body, .. }) => {
                self.ground.find(format!("{status} {body} to {action} {end:?} of {asked:?}"));
                return false;
            }
        };
        let told = Ended::read(&body);
        let fits = told.as_ref().is_some_and(|told| {
            told.status == status
                && hold.amounts.contains(&told.held)
                && end.as_ref().is_none_or(|end| end["amount"] == told.amount)
        });
        let is_first = hold.ended.is_none();
        // The first response may be a replay only if an earlier attempt got no response; every later one must be a
        // replay.
        if !fits || (!is_first && (hold.ended != told || !replayed)) || (is_first && replayed && hold.doubts == 0) {
            self.ground.find(format!("{action} was answered, replayed {replayed}, with {body}: {asked:?}"));
        } else if is_first {
            hold.ended = told;
            count(&self.ground.counts.ended);
            self.ground.counts.used.fetch_add(self.journal[place].counted(), Ordering::SeqCst);
        }
        true
    }

    async fn change(&mut self, place: usize, action: &str, body: Option<&Value>) -> Option<Heard> {
        let door = self.door();
        let asked = &self.journal[place];
        let Outcome::Granted(told) = &asked.outcome else { return None };
        let (id, _) = told.hold?;
        let token = self.ground.people.token_for(asked.person);
        let path = format!("/api/usage/reservations/{id}/{action}");
        let heard = self.ground.doors.post(door, &path, &token, body).await;
        if heard.is_none() {
            count(&self.ground.counts.unanswered);
        }
        heard
    }
}
