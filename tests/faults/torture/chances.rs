//! Chances: the dice of the schema tests, which throw the same for the same seed.

#[path = "../../schema/dice.rs"]
mod dice;

pub use dice::Dice;
