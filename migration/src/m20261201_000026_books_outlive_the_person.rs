//! Books outlive the person: records of calls and of what keys used have no foreign key to users and keys.

use crate::step::Step;

pub const STEP: Step = Step {
    name: "m20261201_000026_books_outlive_the_person",
    up: include_str!("steps/000026_books_outlive_the_person.up.sql"),
    down: include_str!("steps/000026_books_outlive_the_person.down.sql"),
};
