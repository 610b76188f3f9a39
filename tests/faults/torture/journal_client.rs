//! Records the responses to a client in its journal. A response that must not occur is a finding at once.

use std::sync::atomic::Ordering;

use serde_json::Value;

use super::client::Client;
use super::doors::Heard;
use super::ground::count;
use super::journal::{Outcome, Told};
use super::people::is_hot;

impl Client {
    /// `None` is a missing or incomplete response.
    pub(super) fn hear(&mut self, place: usize, heard: Option<Heard>) {
        let counts = &self.ground.counts;
        match heard {
            None => {
                count(&counts.unanswered);
                self.doubt(place);
            }
            Some(Heard { status: 200 | 201, body, replayed }) => self.grant(place, &body, replayed),
            Some(Heard { status: 402 | 429, body, .. }) => self.refuse(place, &body),
            Some(heard) if heard.says_that_nothing_happened() => {
                count(&counts.away);
                self.reopen(place);
            }
            Some(Heard { status: 408 | 502 | 503 | 504, .. }) => {
                count(&counts.away);
                self.doubt(place);
            }
            Some(Heard { status, body, .. }) => {
                self.ground.find(format!("{status} {body} to {:?}", self.journal[place]));
                self.doubt(place);
            }
        }
    }

    /// The request may have been executed; it is sent again.
    pub(super) fn doubt(&mut self, place: usize) {
        self.journal[place].doubts += 1;
        self.reopen(place);
    }

    pub(super) fn reopen(&mut self, place: usize) {
        if self.journal[place].outcome == Outcome::Open && !self.open.contains(&place) {
            self.open.push_back(place);
        }
    }

    pub(super) fn grant(&mut self, place: usize, body: &Value, replayed: bool) {
        let asked = &mut self.journal[place];
        let Some(told) = Told::read(body) else {
            return self.ground.find(format!("an answer without its numbers: {body} to {asked:?}"));
        };
        if let Outcome::Granted(first) = &asked.outcome {
            // Only REST makes reservations, so the comparison includes the reservation's id.
            if *first != told || !replayed {
                self.ground.find(format!("granted again, replayed {replayed}, with {told:?}: {asked:?}"));
            }
            return;
        }
        if replayed && asked.doubts == 0 {
            self.ground
                .find(format!("a repeat of what was never in doubt, or what was said not to have happened: {asked:?}"));
        }
        if told.hold.is_some() != asked.hold.is_some() {
            self.ground.find(format!("a hold where none was asked for, or none: {told:?} to {asked:?}"));
        }
        let is_hold = asked.hold.is_some();
        asked.outcome = Outcome::Granted(told);
        count(&self.ground.counts.granted);
        if is_hold {
            self.plan_end(place);
        } else {
            self.ground.counts.used.fetch_add(self.journal[place].amount, Ordering::SeqCst);
        }
    }

    /// Of two requests that were sent in parallel, one may be refused and the other granted after it. Use never
    /// decreases, so the numbers of a refusal show whether it came after the grant.
    pub(super) fn refuse(&mut self, place: usize, body: &Value) {
        let asked = &mut self.journal[place];
        if let Outcome::Granted(first) = &asked.outcome {
            if body["current"].as_i64().is_none_or(|current| current >= first.current) {
                self.ground.find(format!("granted first, and refused when it was sent again, with {body}: {asked:?}"));
            }
            return;
        }
        asked.outcome = Outcome::Refused;
        count(&self.ground.counts.refused);
        if is_hot(self.journal[place].person) {
            self.ground.refuse_hot();
        } else {
            self.count_refusal();
        }
    }
}
