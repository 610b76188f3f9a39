//! Metering: use that is carried into another counter, and the result of settling a reservation.

use crate::step::MigrationStep;

pub const STEP: MigrationStep = MigrationStep {
    name: "m20261121_000011_carry_counters_and_settle_holds",
    up: include_str!("steps/000011_carry_counters_and_settle_holds.up.sql"),
    down: include_str!("steps/000011_carry_counters_and_settle_holds.down.sql"),
};
