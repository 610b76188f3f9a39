//! A client: it sends one random request after the other, and keeps a journal of all of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::chances::Dice;
use super::doors::DOORS;
use super::ground::{Ground, count};
use super::journal::{Hold, Outcome, Use};
use super::people::{CALLS, CREDITS};

/// After this number of refusals the client uses the next of its own users.
const REFUSALS: u32 = 6;

/// More tries than this indicate a fault, not chance: each takes a tenth of a second or more.
const TRIES: u32 = 300;
const PAUSE_BETWEEN_TRIES: Duration = Duration::from_millis(100);

pub struct Client {
    pub(super) number: u32,
    pub(super) dice: Dice,
    pub(super) ground: Arc<Ground>,
    pub(super) journal: Vec<Use>,
    /// Requests that were sent and are not resolved yet, by their index in the journal.
    pub(super) open: VecDeque<usize>,
    /// Reservations that the client has still to end, and when.
    pub(super) held: Vec<(usize, Instant)>,
    pub(super) turn: u32,
    pub(super) refusals: u32,
}

impl Client {
    pub fn new(number: u32, ground: Arc<Ground>) -> Self {
        let seed = ground.form.seed.wrapping_add(u64::from(number) + 1);
        let (journal, open, held) = (Vec::new(), VecDeque::new(), Vec::new());
        Self { number, dice: Dice::seeded(seed), ground, journal, open, held, turn: 0, refusals: 0 }
    }

    /// Runs until the test stops it.
    pub async fn work(mut self) -> Self {
        while !self.ground.is_stopping() {
            // While both endpoints are closed there is no process to send to.
            if self.ground.doors.is_any_open() {
                self.step().await;
            }
            tokio::time::sleep(self.ground.form.pause).await;
        }
        self
    }

    async fn step(&mut self) {
        let now = Instant::now();
        if let Some(due) = self.held.iter().position(|(_, at)| *at <= now) {
            let (place, _) = self.held.swap_remove(due);
            self.end_hold(place).await;
        } else if !self.open.is_empty() && self.dice.once_in(3) {
            self.retry().await;
        } else if !self.journal.is_empty() && self.dice.once_in(12) {
            self.repeat().await;
        } else {
            match self.dice.below(100) {
                0..44 => self.consume().await,
                44..52 => self.consume_many().await,
                52..74 => self.reserve().await,
                74..84 => self.consume_in_sql().await,
                84..93 => self.hang_up().await,
                _ => self.consume_twice_at_once().await,
            }
        }
    }

    /// Ends every reservation that is still open, and retries every uncertain use until it is certain: no other request
    /// is running any more, so a refusal is now final. Returns the journal.
    pub async fn finish(mut self) -> Vec<Use> {
        let uncertain = (0..self.journal.len()).filter(|place| self.journal[*place].is_uncertain());
        self.open = uncertain.collect();
        let mut tries = 0;
        while let Some(place) = self.open.pop_front() {
            self.journal[place].outcome = Outcome::Open;
            self.send_again(place).await;
            if self.journal[place].outcome == Outcome::Open {
                tries += 1;
                if tries > TRIES {
                    self.ground.find(format!("never resolved: {:?}", self.journal[place]));
                    break;
                }
                tokio::time::sleep(PAUSE_BETWEEN_TRIES).await;
            }
        }
        while let Some((place, at)) = self.held.pop() {
            tokio::time::sleep_until(at.into()).await;
            let is_open = self.held.len();
            self.end_hold(place).await;
            if self.held.len() > is_open {
                tries += 1;
                if tries > TRIES {
                    self.ground.find(format!("never ended: {:?}", self.journal[place]));
                    break;
                }
            }
        }
        self.journal
    }

    /// Records a use before it is sent: mostly of one of the client's own users, sometimes of a hot one.
    pub(super) fn note(&mut self, in_sql: bool, hold: impl FnOnce(&mut Dice, i64) -> Option<Hold>) -> usize {
        let is_hot = self.dice.once_in(3);
        let person = if is_hot { self.ground.hot() } else { self.ground.people.own(self.number, self.turn) };
        let feature = if self.dice.once_in(4) { CREDITS } else { CALLS };
        let amount = 1 + i64::try_from(self.dice.below(5)).unwrap();
        let key = format!("client-{}-use-{}", self.number, self.journal.len());
        let hold = hold(&mut self.dice, amount);
        self.journal.push(Use { key, person, feature, amount, in_sql, outcome: Outcome::Open, doubts: 0, hold });
        count(&self.ground.counts.sent);
        self.journal.len() - 1
    }

    /// A random endpoint among the open ones.
    pub(super) fn door(&mut self) -> usize {
        let first = usize::try_from(self.dice.below(DOORS as u64)).unwrap();
        (first..first + DOORS).map(|door| door % DOORS).find(|door| self.ground.doors.is_open(*door)).unwrap_or(first)
    }

    /// Counts a refusal; after several of them the client switches to the next of its own users.
    pub(super) fn count_refusal(&mut self) {
        self.refusals += 1;
        if self.refusals >= REFUSALS {
            self.turn += 1;
            self.refusals = 0;
        }
    }
}
