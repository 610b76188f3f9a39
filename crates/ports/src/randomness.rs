//! The source of ids and of random numbers.

use uuid::Uuid;

pub trait Randomness: Send + Sync {
    /// A new id, unique for all time; ids made later sort later (UUID version 7).
    fn new_id(&self) -> Uuid;

    /// A uniformly random number below the bound; 0 where the bound is 0. For pauses, never for secrets.
    fn below(&self, bound: u64) -> u64;
}
