//! Logs of calls and counters of keys stay when the user is deleted: they have no foreign key to users and keys.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261201_000026_books_outlive_the_person",
    up: include_str!("steps/000026_books_outlive_the_person.up.sql"),
    down: include_str!("steps/000026_books_outlive_the_person.down.sql"),
};
