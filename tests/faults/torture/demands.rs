//! The requests of a client: one use, a batch, the same use twice in parallel, an aborted request, and repeats.

use std::time::Duration;

use futures_util::join;
use serde_json::{Value, json};

use super::client::Client;
use super::doors::{DOORS, Heard};
use super::ground::count;

/// Repeats pick one of this many last uses; earlier ones were repeated already.
const REPEATED_OF_LAST: u64 = 100;

const BATCH_MAX: u64 = 6;

impl Client {
    pub(super) async fn consume(&mut self) {
        let place = self.note(false, |_, _| None);
        self.send(place).await;
    }

    /// Sends one request for several users, which only the administrator may do.
    pub(super) async fn consume_many(&mut self) {
        let size = 2 + self.dice.below(BATCH_MAX - 1);
        let places: Vec<usize> = (0..size).map(|_| self.note(false, |_, _| None)).collect();
        let items: Vec<Value> = places.iter().map(|place| self.journal[*place].body()).collect();
        let door = self.door();
        let token = &self.ground.people.administrator;
        let heard = self.ground.doors.post(door, "/api/usage/batch", token, Some(&json!({ "items": items }))).await;
        let of_item = |item: &Value| Heard {
            status: item["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or_default(),
            replayed: item["replayed"] == true,
            body: if item["consumed"].is_null() { item["problem"].clone() } else { item["consumed"].clone() },
        };
        match heard {
            Some(Heard { status: 200, body, .. }) => {
                let data = body["data"].as_array().cloned().unwrap_or_default();
                for (item, place) in places.into_iter().enumerate() {
                    self.hear(place, data.get(item).map(of_item));
                }
            }
            other => {
                let (status, body) = other.map_or((0, Value::Null), |heard| (heard.status, heard.body));
                for place in places {
                    let heard = Heard { status, body: body.clone(), replayed: false };
                    self.hear(place, (status != 0).then_some(heard));
                }
            }
        }
    }

    /// Sends the same use to both endpoints in parallel: it is granted once, and both responses have the same content.
    pub(super) async fn consume_twice_at_once(&mut self) {
        let place = self.note(false, |_, _| None);
        let asked = &self.journal[place];
        let (body, path, token) = (asked.body(), asked.path(), self.ground.people.token_for(asked.person));
        let doors = &self.ground.doors;
        let (one, other) =
            join!(doors.post(0, path, &token, Some(&body)), doors.post(DOORS - 1, path, &token, Some(&body)));
        let mut heard = [one, other];
        // The responses are handled in the order of processing; a lost response may have been the first.
        heard.sort_by_key(|heard| heard.as_ref().map_or(0, |heard| 1 + u8::from(heard.replayed)));
        for heard in heard {
            self.hear(place, heard);
        }
    }

    /// Sends a request and disconnects, either before the whole request was sent or after it.
    pub(super) async fn hang_up(&mut self) {
        let holds = self.dice.once_in(4);
        let place = self.note(false, |dice, amount| holds.then(|| super::holds::planned(dice, amount)));
        let asked = &self.journal[place];
        let (body, path, token) = (asked.body(), asked.path(), self.ground.people.token_for(asked.person));
        let percent = if self.dice.once_in(4) { self.dice.below(100) } else { 100 };
        let wait = Duration::from_micros(self.dice.below(10_000));
        let door = self.door();
        let percent = usize::try_from(percent).unwrap();
        self.ground.doors.cut(door, path, &token, &body, percent, wait).await;
        count(&self.ground.counts.cut);
        self.hear(place, None);
    }

    /// Retries an unresolved use, through any endpoint.
    pub(super) async fn retry(&mut self) {
        if let Some(place) = self.open.pop_front() {
            self.send_again(place).await;
        }
    }

    pub(super) async fn send_again(&mut self, place: usize) {
        count(&self.ground.counts.retried);
        if self.journal[place].in_sql { self.send_in_sql(place).await } else { self.send(place).await }
    }

    /// Repeats a granted use: the response must equal the first one.
    pub(super) async fn repeat(&mut self) {
        let known = self.journal.len() as u64;
        let back = 1 + self.dice.below(known.min(REPEATED_OF_LAST));
        let place = usize::try_from(known - back).unwrap();
        if self.journal[place].told().is_none() {
            return;
        }
        count(&self.ground.counts.repeated);
        let has_ended = self.journal[place].hold.as_ref().is_some_and(|hold| hold.ended.is_some());
        if has_ended && self.dice.once_in(2) {
            self.say_end(place).await;
        } else {
            // A use that was made in SQL may be repeated over REST too.
            self.send(place).await;
        }
    }

    pub(super) async fn send(&mut self, place: usize) {
        let asked = &self.journal[place];
        let (body, path, token) = (asked.body(), asked.path(), self.ground.people.token_for(asked.person));
        let door = self.door();
        let heard = self.ground.doors.post(door, path, &token, Some(&body)).await;
        self.hear(place, heard);
    }
}
