//! Schema tests from outside: its steps, its objects against the catalogue, the rights of every role by real
//! statements, and the rules that exist both in SQL and in Rust.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "test code: a panic is how a test fails, with its own words"
)]

mod address_digests;
mod audit;
mod catalogue;
mod clusters;
mod columns;
mod consume_usage;
mod consume_usage_at_once;
mod decisions;
mod dice;
mod dump;
mod effective_plan;
mod integrity;
mod key_lineages;
mod list_costs;
mod locks;
mod matrix;
mod objects;
mod organizations;
mod own_rows;
mod partitions;
mod people;
mod periods;
mod planted;
mod proofs;
mod protection;
mod races;
mod rights;
mod roles;
mod samples;
mod steps;
mod steps_lint;
mod subscriptions_of_stripe;
mod supabase;
mod supabase_imitation;
mod tampers;
mod undoing;
mod upgrades;
mod usage_sums;
