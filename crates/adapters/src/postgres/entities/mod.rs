//! The rows of Postgres as `SeaORM` reads and writes them, private to this adapter. Each has only the columns that the
//! ports need: other columns (hashes, Stripe's ids) are neither read nor written by accident.

pub(super) mod audit_logs;
pub(super) mod feature_overrides;
pub(super) mod features;
pub(super) mod plan_features;
pub(super) mod plans;
pub(super) mod refresh_tokens;
pub(super) mod scheduled_plan_changes;
pub(super) mod sessions;
