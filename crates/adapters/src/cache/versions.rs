//! Versions: which entries of the cache are still fresh.
//!
//! Each change increments a version number. An entry stores the sum of the version numbers that it depends on, taken
//! before it was read. Numbers only grow, so the sum is the same only if none of them changed. So a change need not
//! find the entries that it invalidates, and data that was read before a change and arrives after it is never fresh.
//! Users and API keys share numbers with a few others, whose entries are then read once more.
//!
//! An entry is fresh for a second after it was requested. While a change feed confirms that it has delivered every
//! change, it stays fresh for a second after the last confirmation. Costs a few atomic loads per look-up, one or two
//! additions per change, and 1 MiB.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use domain::api_keys::ApiKeyId;
use domain::changes::Change;
use domain::users::UserId;
use ports::clock::Clock;
use uuid::Uuid;

/// How far cached data may be behind the database.
pub(super) const BEHIND_AT_MOST: Duration = Duration::from_secs(1);

/// The longest time that an entry is fresh, whatever the feed confirms.
pub(super) const REMEMBERED_AT_MOST: Duration = Duration::from_mins(10);

/// How many version numbers there are for users and for API keys.
const STRIPES: usize = 1 << 14;

/// Counts change more often than anything else, so fewer share a number.
const COUNT_STRIPES: usize = 1 << 16;

/// A moment of this process, in microseconds by `Clock::elapsed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Moment {
    pub fn at(elapsed: Duration) -> Self {
        Self(microseconds(elapsed))
    }

    pub fn plus(self, time: Duration) -> Self {
        Self(self.0.saturating_add(microseconds(time)))
    }

    fn is_within(self, time: Duration, now: Self) -> bool {
        now.0.saturating_sub(self.0) < microseconds(time)
    }
}

pub(super) struct Versions {
    clock: Arc<dyn Clock>,
    /// Until when a feed has delivered every change; zero means never.
    vouched: AtomicU64,
    /// Increments with every change, before any other number.
    changes: AtomicU64,
    everything: AtomicU64,
    catalogue: AtomicU64,
    users: Box<[AtomicU64]>,
    keys: Box<[AtomicU64]>,
    counts: Box<[AtomicU64]>,
}

impl Versions {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let stripes = |count| std::iter::repeat_with(AtomicU64::default).take(count).collect();
        Self {
            clock,
            vouched: AtomicU64::default(),
            changes: AtomicU64::default(),
            everything: AtomicU64::default(),
            catalogue: AtomicU64::default(),
            users: stripes(STRIPES),
            keys: stripes(STRIPES),
            counts: stripes(COUNT_STRIPES),
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    pub fn now(&self) -> Moment {
        Moment::at(self.elapsed())
    }

    /// Whether data requested at `asked_at` is still fresh, if no version changed.
    pub fn is_fresh(&self, asked_at: Moment, now: Moment) -> bool {
        asked_at.max(Moment(self.vouched.load(Ordering::SeqCst))).is_within(BEHIND_AT_MOST, now)
    }

    /// Whether data requested at `asked_at` is fresh without a feed's confirmation.
    pub fn is_recent(asked_at: Moment, now: Moment) -> bool {
        asked_at.is_within(BEHIND_AT_MOST, now)
    }

    pub fn is_fed(&self) -> bool {
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

    /// The number of all changes: for data whose owner is not known before it is read.
    pub fn of_anything(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    pub fn invalidate(&self, change: Change) {
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

    pub fn confirm_fresh(&self, moment: Duration) {
        // At least 1, since zero means never.
        self.vouched.fetch_max(microseconds(moment).max(1), Ordering::SeqCst);
    }

    pub fn invalidate_all(&self) {
        self.vouched.store(0, Ordering::SeqCst);
        self.invalidate(Change::Everything);
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn sum(numbers: &[&AtomicU64]) -> u64 {
    numbers.iter().fold(0, |sum, number| sum.wrapping_add(number.load(Ordering::SeqCst)))
}

/// The version number of an id. The last bits of a UUID are random in every version in use.
fn stripe(stripes: &[AtomicU64], id: Uuid) -> &AtomicU64 {
    static NONE: AtomicU64 = AtomicU64::new(0);
    let place = usize::try_from(id.as_u64_pair().1 % stripes.len() as u64).unwrap_or_default();
    // The remainder is always a valid index, since there is at least one stripe.
    stripes.get(place).unwrap_or(&NONE)
}

#[cfg(test)]
mod tests {
    use super::super::testing::an_hour_later;
    use super::*;

    fn user(number: u128) -> UserId {
        UserId(Uuid::from_u128(number))
    }

    #[test]
    fn a_change_moves_what_depends_on_it_and_nothing_else() {
        let versions = Versions::new(an_hour_later());
        let key = ApiKeyId(Uuid::from_u128(3));
        let all = || {
            [
                versions.of_role(user(1)),
                versions.of_facts(user(1)),
                versions.of_key(key, user(1)),
                versions.of_counts(user(1)),
                versions.of_role(user(2)),
                versions.of_facts(user(2)),
            ]
        };
        let moved_by = |change| {
            let (before, heard) = (all(), versions.of_anything());
            versions.invalidate(change);
            assert_eq!(versions.of_anything(), heard + 1);
            std::iter::zip(before, all()).map(|(before, after)| before != after).collect::<Vec<_>>()
        };
        assert_eq!(moved_by(Change::User(user(1))), [true, true, true, false, false, false]);
        assert_eq!(moved_by(Change::Key(key)), [false, false, true, false, false, false]);
        assert_eq!(moved_by(Change::Catalogue), [false, true, false, false, false, true]);
        assert_eq!(moved_by(Change::Everything), [true; 6]);
        let before = all();
        versions.counted(user(1));
        assert!(versions.of_counts(user(1)) != before[3] && versions.of_facts(user(1)) == before[1]);
    }

    #[test]
    fn what_was_read_is_believed_for_a_second_after_the_last_word() {
        let versions = Versions::new(an_hour_later());
        let at = Duration::from_millis;
        let is_fresh = |asked, now| versions.is_fresh(Moment::at(at(asked)), Moment::at(at(now)));
        assert!(is_fresh(0, 999) && !is_fresh(0, 1_000));
        versions.confirm_fresh(at(5_000));
        versions.confirm_fresh(at(4_000));
        assert!(is_fresh(0, 5_999) && !is_fresh(0, 6_000) && is_fresh(5_500, 6_400));
        versions.invalidate_all();
        assert!(!is_fresh(4_000, 5_500) && is_fresh(5_000, 5_500));
        assert!(!versions.is_fed());
        versions.confirm_fresh(versions.elapsed());
        assert!(versions.is_fed());
    }
}
