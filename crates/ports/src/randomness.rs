//! The one place where ids come from.

use uuid::Uuid;

pub trait Randomness: Send + Sync {
    /// A new id, unique for all time; ids made later sort later (UUID version 7).
    fn new_id(&self) -> Uuid;
}
