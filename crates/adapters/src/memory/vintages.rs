//! Vintages: which of the things that were read are still believed.
//!
//! A change moves a number, and what was read carries the sum of the numbers that it depends on, taken before it was
//! asked for: numbers only grow, so the sum is the same only if none of them moved. That is the whole of forgetting: no
//! entry is searched for, and an answer that a change overtook on its way is never believed. Users and keys share
//! numbers with a few others, who are then read once more.
//!
//! What was read is believed for a second after it was asked for; longer while a feed vouches, at most for a second after
//! its last word. Costs some loads of atomics a question, one or two additions a change, and 1 MiB.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use domain::api_keys::ApiKeyId;
use domain::changes::Change;
use domain::users::UserId;
use uuid::Uuid;

/// How far behind the database an answer from memory may be.
pub(super) const BEHIND_AT_MOST: Duration = Duration::from_secs(1);

/// How long anything is remembered, however well it is vouched for.
pub(super) const REMEMBERED_AT_MOST: Duration = Duration::from_mins(10);

/// How many numbers there are for users and for keys.
const STRIPES: usize = 1 << 14;

/// Counts change more often than anything else, so fewer share a number.
const COUNT_STRIPES: usize = 1 << 16;

/// A moment of this process, in microseconds after its memory was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Moment {
    pub fn plus(self, time: Duration) -> Self {
        Self(self.0.saturating_add(microseconds(time)))
    }

    fn is_within(self, time: Duration, now: Self) -> bool {
        now.0.saturating_sub(self.0) < microseconds(time)
    }
}

pub(super) struct Vintages {
    origin: Instant,
    /// Up to when a feed has told everything; zero is never.
    vouched: AtomicU64,
    /// Moves with every change, before any other number does.
    changes: AtomicU64,
    everything: AtomicU64,
    catalogue: AtomicU64,
    users: Box<[AtomicU64]>,
    keys: Box<[AtomicU64]>,
    counts: Box<[AtomicU64]>,
}

impl Vintages {
    pub fn new() -> Self {
        let stripes = |count| std::iter::repeat_with(AtomicU64::default).take(count).collect();
        Self {
            origin: Instant::now(),
            vouched: AtomicU64::default(),
            changes: AtomicU64::default(),
            everything: AtomicU64::default(),
            catalogue: AtomicU64::default(),
            users: stripes(STRIPES),
            keys: stripes(STRIPES),
            counts: stripes(COUNT_STRIPES),
        }
    }

    pub fn moment(&self, at: Instant) -> Moment {
        Moment(microseconds(at.saturating_duration_since(self.origin)))
    }

    pub fn now(&self) -> Moment {
        self.moment(Instant::now())
    }

    /// Whether what was asked for then can still be believed, if no number moved.
    pub fn believes(&self, asked_at: Moment, now: Moment) -> bool {
        asked_at.max(Moment(self.vouched.load(Ordering::SeqCst))).is_within(BEHIND_AT_MOST, now)
    }

    /// Whether what was asked for then is young, whoever vouches for what.
    pub fn is_young(asked_at: Moment, now: Moment) -> bool {
        asked_at.is_within(BEHIND_AT_MOST, now)
    }

    pub fn is_hearing(&self) -> bool {
        let vouched = self.vouched.load(Ordering::SeqCst);
        vouched > 0 && Moment(vouched).is_within(BEHIND_AT_MOST, self.now())
    }

    pub fn of_role(&self, user_id: UserId) -> u64 {
        sum(&[&self.everything, stripe(&self.users, user_id.0)])
    }

    pub fn of_facts(&self, user_id: UserId) -> u64 {
        sum(&[&self.everything, &self.catalogue, stripe(&self.users, user_id.0)])
    }

    pub fn of_key(&self, id: ApiKeyId, user_id: UserId) -> u64 {
        sum(&[&self.everything, stripe(&self.users, user_id.0), stripe(&self.keys, id.0)])
    }

    pub fn of_counts(&self, user_id: UserId) -> u64 {
        sum(&[&self.everything, stripe(&self.counts, user_id.0)])
    }

    /// How many changes were heard at all: for what is asked for before anybody knows whose it is.
    pub fn of_anything(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    pub fn heard(&self, change: Change) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        let number = match change {
            Change::Catalogue => &self.catalogue,
            Change::User(user_id) => stripe(&self.users, user_id.0),
            Change::Key(id) => stripe(&self.keys, id.0),
            Change::Everything => &self.everything,
        };
        number.fetch_add(1, Ordering::SeqCst);
    }

    pub fn counted(&self, user_id: UserId) {
        stripe(&self.counts, user_id.0).fetch_add(1, Ordering::SeqCst);
    }

    pub fn vouch(&self, moment: Instant) {
        // At the very beginning a microsecond too much, since zero is never.
        self.vouched.fetch_max(self.moment(moment).0.max(1), Ordering::SeqCst);
    }

    pub fn lost(&self) {
        self.vouched.store(0, Ordering::SeqCst);
        self.heard(Change::Everything);
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn sum(numbers: &[&AtomicU64]) -> u64 {
    numbers.iter().fold(0, |sum, number| sum.wrapping_add(number.load(Ordering::SeqCst)))
}

/// The number that an id has. The last bits of a UUID are chance in every version that is in use.
fn stripe(stripes: &[AtomicU64], id: Uuid) -> &AtomicU64 {
    static NONE: AtomicU64 = AtomicU64::new(0);
    let place = usize::try_from(id.as_u64_pair().1 % stripes.len() as u64).unwrap_or_default();
    // The rest of a division lies within the stripes, of which there is at least one.
    stripes.get(place).unwrap_or(&NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: u128) -> UserId {
        UserId(Uuid::from_u128(number))
    }

    #[test]
    fn a_change_moves_what_depends_on_it_and_nothing_else() {
        let vintages = Vintages::new();
        let key = ApiKeyId(Uuid::from_u128(3));
        let all = || {
            [
                vintages.of_role(user(1)),
                vintages.of_facts(user(1)),
                vintages.of_key(key, user(1)),
                vintages.of_counts(user(1)),
                vintages.of_role(user(2)),
                vintages.of_facts(user(2)),
            ]
        };
        let moved_by = |change| {
            let (before, heard) = (all(), vintages.of_anything());
            vintages.heard(change);
            assert_eq!(vintages.of_anything(), heard + 1);
            std::iter::zip(before, all()).map(|(before, after)| before != after).collect::<Vec<_>>()
        };
        assert_eq!(moved_by(Change::User(user(1))), [true, true, true, false, false, false]);
        assert_eq!(moved_by(Change::Key(key)), [false, false, true, false, false, false]);
        assert_eq!(moved_by(Change::Catalogue), [false, true, false, false, false, true]);
        assert_eq!(moved_by(Change::Everything), [true; 6]);
        let before = all();
        vintages.counted(user(1));
        assert!(vintages.of_counts(user(1)) != before[3] && vintages.of_facts(user(1)) == before[1]);
    }

    #[test]
    fn what_was_read_is_believed_for_a_second_after_the_last_word() {
        let vintages = Vintages::new();
        let at = |milliseconds| vintages.origin + Duration::from_millis(milliseconds);
        let believes = |asked, now| vintages.believes(vintages.moment(at(asked)), vintages.moment(at(now)));
        assert!(believes(0, 999) && !believes(0, 1_000));
        vintages.vouch(at(5_000));
        vintages.vouch(at(4_000));
        assert!(believes(0, 5_999) && !believes(0, 6_000) && believes(5_500, 6_400));
        vintages.lost();
        assert!(!believes(4_000, 5_500) && believes(5_000, 5_500));
        assert!(!vintages.is_hearing());
        vintages.vouch(Instant::now());
        assert!(vintages.is_hearing());
    }
}
