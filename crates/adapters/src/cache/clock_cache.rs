//! A map of bounded size in memory with clock eviction: an entry that was read since the hand last passed stays, and
//! one that was not is replaced.
//!
//! Bounds: the number of entries that it is made for, and a tenth more where that is 100,000. Costs: one lock of 64, never held
//! across an await; two hashes of the key; 16 to 40 bytes per entry beside the entry itself. The hash is randomly seeded, so that
//! no caller can choose keys that collide with another's.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many parts have a lock of their own.
const PARTS: usize = 64;

/// A part with a smaller share than this has an exact bound: few entries are cheap to read again.
const UNEVEN_FROM: usize = 100;

/// A full part grows by a quarter, at least by this many slots, so that little memory is unused.
const GROWTH_MIN: usize = 16;

pub(crate) struct ClockCache<K, V> {
    hasher: RandomState,
    parts: Box<[Mutex<Part<K, V>>]>,
}

struct Part<K, V> {
    /// The slot of each hash. Of two keys with one hash, the later one replaces the earlier.
    places: HashMap<u64, usize>,
    slots: Vec<Slot<K, V>>,
    slots_max: usize,
    hand: usize,
}

struct Slot<K, V> {
    hash: u64,
    /// Whether it was read since the hand last passed.
    used: bool,
    key: K,
    value: V,
}

impl<K: Hash + Eq, V> ClockCache<K, V> {
    /// Room for `at_most` entries. The hash spreads them unevenly, so a part has room for four standard deviations more than its
    /// share. Without that, half of the parts are too small, and evict entries that are read in turn just before they are read
    /// again.
    pub fn new(at_most: usize) -> Self {
        let share = at_most.div_ceil(PARTS).max(1);
        let slots_max = if share < UNEVEN_FROM { share } else { share + 4 * share.isqrt() };
        let part = || Mutex::new(Part { places: HashMap::new(), slots: Vec::new(), slots_max, hand: 0 });
        Self { hasher: RandomState::new(), parts: std::iter::repeat_with(part).take(PARTS).collect() }
    }

    /// Applies `look` to the entry of this key, if there is one. `look` runs under the lock, so it must be short.
    pub fn get_with<Q, R>(&self, key: &Q, look: impl FnOnce(&mut V) -> R) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        let mut part = self.part(hash)?;
        let place = *part.places.get(&hash)?;
        let slot = part.slots.get_mut(place).filter(|slot| slot.key.borrow() == key)?;
        slot.used = true;
        Some(look(&mut slot.value))
    }

    /// Inserts the value, in place of any earlier value of this key.
    pub fn put(&self, key: K, value: V) {
        let hash = self.hasher.hash_one(&key);
        if let Some(mut part) = self.part(hash) {
            part.put(Slot { hash, used: false, key, value });
        }
    }

    /// The number of entries.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.lock().unwrap_or_else(PoisonError::into_inner).slots.len()).sum()
    }

    /// Never `None`: every hash has a part.
    fn part(&self, hash: u64) -> Option<MutexGuard<'_, Part<K, V>>> {
        // The upper bits, since the hash table of a part uses the lower ones.
        let part = usize::try_from(hash >> 32).unwrap_or_default() % PARTS;
        self.parts.get(part).map(|part| part.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<K, V> Part<K, V> {
    fn put(&mut self, slot: Slot<K, V>) {
        if let Some(there) = self.places.get(&slot.hash).and_then(|place| self.slots.get_mut(*place)) {
            *there = slot;
            return;
        }
        if self.slots.len() < self.slots_max {
            if self.slots.len() == self.slots.capacity() {
                let growth = (self.slots.len() / 4).max(GROWTH_MIN).min(self.slots_max - self.slots.len());
                self.slots.reserve_exact(growth);
            }
            self.places.insert(slot.hash, self.slots.len());
            self.slots.push(slot);
            return;
        }
        let place = self.free_place();
        if let Some(there) = self.slots.get_mut(place) {
            self.places.remove(&there.hash);
            self.places.insert(slot.hash, place);
            *there = slot;
        }
    }

    /// The next slot that was not read. The hand clears the marks that it passes, so it goes round at most once.
    fn free_place(&mut self) -> usize {
        loop {
            let place = self.hand;
            self.hand = (place + 1) % self.slots.len().max(1);
            match self.slots.get_mut(place) {
                Some(slot) if slot.used => slot.used = false,
                _ => return place,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_found_under_its_key_until_another_takes_its_place() {
        let shelf = ClockCache::new(1_000);
        shelf.put("ada".to_owned(), 1);
        assert_eq!((shelf.get_with("ada", |value| *value), shelf.get_with("bob", |value| *value)), (Some(1), None));
        shelf.put("ada".to_owned(), 2);
        shelf.get_with("ada", |value| *value += 1);
        assert_eq!((shelf.get_with("ada", |value| *value), shelf.len()), (Some(3), 1));
    }

    #[test]
    fn as_many_as_there_is_room_for_all_stay_when_they_are_read_in_turn() {
        let shelf = ClockCache::new(100_000);
        for number in 0..100_000_u32 {
            shelf.put(number, ());
        }
        let kept = (0..100_000_u32).filter(|number| shelf.get_with(number, |()| ()).is_some()).count();
        assert!(kept >= 99_990, "{kept}");
        for number in 0..400_000_u32 {
            shelf.put(number, ());
        }
        assert!(shelf.len() <= 112_000, "{}", shelf.len());
    }

    #[test]
    fn there_are_never_more_than_the_bound_and_what_is_asked_for_stays() {
        let shelf = ClockCache::new(640);
        let favourites = 0..10_u32;
        for number in 0..100_000_u32 {
            shelf.put(number, number);
            for favourite in favourites.clone() {
                shelf.get_with(&favourite, |_| ());
            }
        }
        assert_eq!(shelf.len(), 640);
        assert!(favourites.clone().all(|favourite| shelf.get_with(&favourite, |value| *value) == Some(favourite)));
        let kept = (0..100_000_u32).filter(|number| shelf.get_with(number, |value| *value) == Some(*number)).count();
        assert_eq!(kept, 640, "each thing that stands here is found under its own key");
    }
}
