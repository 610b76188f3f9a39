//! All steps, in their order. A released step is never edited: a later change is a new step.
//!
//! Rules for a new step, checked by `coverage.rs` and by squawk in `tests/schema/steps_lint.rs`:
//! - A transaction changes one table that has rows, and no statement in it reads or rewrites the rows of that table.
//!   Open the next one by a line `-- @ transaction`. Tables that the step creates may be together in one.
//! - An index on a table that has rows: a part `-- @ concurrently`.
//! - A CHECK or foreign key on such a table: NOT VALID in one part, VALIDATE CONSTRAINT in the next.
//! - Rows are changed in a part `-- @ batches`.

use crate::step::MigrationStep;
use crate::{
    m20261120_000001_create_identity_and_catalogue, m20261120_000002_create_subscriptions_and_money,
    m20261120_000003_create_usage, m20261120_000004_create_keys_and_products, m20261120_000005_create_ai,
    m20261120_000006_create_learning, m20261120_000007_create_record, m20261120_000008_create_usage_rollups,
    m20261120_000009_create_model_prices, m20261120_000010_create_ai_answers,
    m20261121_000011_carry_counters_and_settle_holds, m20261121_000012_find_refunds,
    m20261121_000013_chat_and_key_limits, m20261201_000014_key_lineages, m20261201_000015_count_by_lineage,
    m20261201_000016_address_digests, m20261201_000018_proofs_of_sessions, m20261201_000019_second_factors,
    m20261201_000020_fence_of_sums, m20261201_000021_subscriptions_and_defaults, m20261201_000022_totals_and_proofs,
    m20261201_000023_indexes_of_lists, m20261201_000024_organizations_outlive_owners,
    m20261201_000026_books_outlive_the_person, m20261201_000027_heads_of_ledgers, m20261201_000029_answers_left_behind,
    m20261201_000030_configured_providers,
};

pub const STEPS: [MigrationStep; 27] = [
    m20261120_000001_create_identity_and_catalogue::STEP,
    m20261120_000002_create_subscriptions_and_money::STEP,
    m20261120_000003_create_usage::STEP,
    m20261120_000004_create_keys_and_products::STEP,
    m20261120_000005_create_ai::STEP,
    m20261120_000006_create_learning::STEP,
    m20261120_000007_create_record::STEP,
    m20261120_000008_create_usage_rollups::STEP,
    m20261120_000009_create_model_prices::STEP,
    m20261120_000010_create_ai_answers::STEP,
    m20261121_000011_carry_counters_and_settle_holds::STEP,
    m20261121_000012_find_refunds::STEP,
    m20261121_000013_chat_and_key_limits::STEP,
    m20261201_000014_key_lineages::STEP,
    m20261201_000015_count_by_lineage::STEP,
    m20261201_000016_address_digests::STEP,
    m20261201_000018_proofs_of_sessions::STEP,
    m20261201_000019_second_factors::STEP,
    m20261201_000020_fence_of_sums::STEP,
    m20261201_000021_subscriptions_and_defaults::STEP,
    m20261201_000022_totals_and_proofs::STEP,
    m20261201_000023_indexes_of_lists::STEP,
    m20261201_000024_organizations_outlive_owners::STEP,
    m20261201_000026_books_outlive_the_person::STEP,
    m20261201_000027_heads_of_ledgers::STEP,
    m20261201_000029_answers_left_behind::STEP,
    m20261201_000030_configured_providers::STEP,
];
