//! The random numbers of the schema tests; the same seed gives the same sequence.

#[path = "../../schema/dice.rs"]
mod dice;

pub use dice::Dice;
