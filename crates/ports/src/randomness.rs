//! The one place where ids come from, and the dice.

use uuid::Uuid;

pub trait Randomness: Send + Sync {
    /// A new id, unique for all time; ids made later sort later (UUID version 7).
    fn new_id(&self) -> Uuid;

    /// A number below the bound, each as likely as the others; 0 where the bound is 0. For pauses, never for secrets.
    fn below(&self, bound: u64) -> u64;
}
