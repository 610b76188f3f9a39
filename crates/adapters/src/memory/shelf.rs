//! A shelf: a bounded number of small things by their keys, in memory.
//!
//! Promises: never more than so many (and a tenth more, where there are 100,000); what is asked for stays, and what was not asked for since the hand came by makes
//! room (the clock algorithm). Costs: one lock of one of 64 parts, never held across an await; two hashes of the key; 16
//! to 40 bytes beside each thing. The hash is keyed by chance, so nobody can aim at another's place.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// In how many parts a shelf is locked.
const PARTS: usize = 64;

/// Below this share of a part, its bound is exact: few entries are cheap to read again.
const UNEVEN_FROM: usize = 100;

/// How many places are added at least when a part grows: by a quarter beyond that, so that little memory lies idle.
const GROWTH_MIN: usize = 16;

pub(crate) struct Shelf<K, V> {
    hasher: RandomState,
    parts: Box<[Mutex<Part<K, V>>]>,
}

struct Part<K, V> {
    /// Where the key with this hash stands. Two keys of one hash share a place: the later one takes it.
    places: HashMap<u64, usize>,
    slots: Vec<Slot<K, V>>,
    slots_max: usize,
    hand: usize,
}

struct Slot<K, V> {
    hash: u64,
    /// Whether it was asked for since the hand came by.
    used: bool,
    key: K,
    value: V,
}

impl<K: Hash + Eq, V> Shelf<K, V> {
    /// Room for `at_most` entries. The hash spreads them unevenly over the parts, so each part of some size has room for four
    /// standard deviations more than its share: else half of the parts would be full before the rest, and evict entries that are
    /// read in turn just before they are read again.
    pub fn new(at_most: usize) -> Self {
        let share = at_most.div_ceil(PARTS).max(1);
        let slots_max = if share < UNEVEN_FROM { share } else { share + 4 * share.isqrt() };
        let part = || Mutex::new(Part { places: HashMap::new(), slots: Vec::new(), slots_max, hand: 0 });
        Self { hasher: RandomState::new(), parts: std::iter::repeat_with(part).take(PARTS).collect() }
    }

    /// What `look` makes of the thing under this key, if there is one. `look` runs under the lock: it is short.
    pub fn look<Q, R>(&self, key: &Q, look: impl FnOnce(&mut V) -> R) -> Option<R>
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

    /// Puts a thing under this key, in place of any other.
    pub fn put(&self, key: K, value: V) {
        let hash = self.hasher.hash_one(&key);
        if let Some(mut part) = self.part(hash) {
            part.put(Slot { hash, used: false, key, value });
        }
    }

    /// How many things stand here.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.lock().unwrap_or_else(PoisonError::into_inner).slots.len()).sum()
    }

    /// Every hash has its part.
    fn part(&self, hash: u64) -> Option<MutexGuard<'_, Part<K, V>>> {
        // The upper bits, since the table inside a part goes by the lower ones.
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

    /// The next place that nobody asked for. The hand goes round at most once: it forgets who was asked for on its way.
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
        let shelf = Shelf::new(1_000);
        shelf.put("ada".to_owned(), 1);
        assert_eq!((shelf.look("ada", |value| *value), shelf.look("bob", |value| *value)), (Some(1), None));
        shelf.put("ada".to_owned(), 2);
        shelf.look("ada", |value| *value += 1);
        assert_eq!((shelf.look("ada", |value| *value), shelf.len()), (Some(3), 1));
    }

    #[test]
    fn as_many_as_there_is_room_for_all_stay_when_they_are_read_in_turn() {
        let shelf = Shelf::new(100_000);
        for number in 0..100_000_u32 {
            shelf.put(number, ());
        }
        let kept = (0..100_000_u32).filter(|number| shelf.look(number, |()| ()).is_some()).count();
        assert!(kept >= 99_990, "{kept}");
        for number in 0..400_000_u32 {
            shelf.put(number, ());
        }
        assert!(shelf.len() <= 112_000, "{}", shelf.len());
    }

    #[test]
    fn there_are_never_more_than_the_bound_and_what_is_asked_for_stays() {
        let shelf = Shelf::new(640);
        let favourites = 0..10_u32;
        for number in 0..100_000_u32 {
            shelf.put(number, number);
            for favourite in favourites.clone() {
                shelf.look(&favourite, |_| ());
            }
        }
        assert_eq!(shelf.len(), 640);
        assert!(favourites.clone().all(|favourite| shelf.look(&favourite, |value| *value) == Some(favourite)));
        let kept = (0..100_000_u32).filter(|number| shelf.look(number, |value| *value) == Some(*number)).count();
        assert_eq!(kept, 640, "each thing that stands here is found under its own key");
    }
}
