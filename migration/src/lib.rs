//! The schema of Product Base: its steps, the objects replaced in place, its seeds and its checks.
//!
//! Promise: a second `up` changes nothing. The next run finishes a run that was killed. Two runners wait for each other
//! by a row that only the owner can lock (`lock.rs`). No other session waits longer than 300 ms for a run
//! (`runner.rs`). A run that cannot begin changes nothing (`refusal.rs`). `down` removes all our objects except the
//! roles, and changes no object of others (including Supabase's `auth`). Cost of an `up` with nothing to do: two
//! connections and about twenty statements.

use std::time::Duration;

use anyhow::{Context, bail};
use sea_orm_migration::sea_orm::DatabaseConnection;

mod anchor;
mod connection;
#[cfg(test)]
mod coverage;
mod lock;
mod m20261120_000001_create_identity_and_catalogue;
mod m20261120_000002_create_subscriptions_and_money;
mod m20261120_000003_create_usage;
mod m20261120_000004_create_keys_and_products;
mod m20261120_000005_create_ai;
mod m20261120_000006_create_learning;
mod m20261120_000007_create_record;
mod m20261120_000008_create_usage_rollups;
mod m20261120_000009_create_model_prices;
mod m20261120_000010_create_ai_answers;
mod m20261121_000011_carry_counters_and_settle_holds;
mod m20261121_000012_find_refunds;
mod m20261121_000013_chat_and_key_limits;
mod m20261201_000014_key_lineages;
mod m20261201_000015_count_by_lineage;
mod m20261201_000016_address_digests;
mod m20261201_000018_proofs_of_sessions;
mod m20261201_000019_second_factors;
mod m20261201_000020_fence_of_sums;
mod m20261201_000021_subscriptions_and_defaults;
mod m20261201_000022_totals_and_proofs;
mod m20261201_000023_indexes_of_lists;
mod m20261201_000024_organizations_outlive_owners;
mod m20261201_000026_books_outlive_the_person;
mod m20261201_000027_heads_of_ledgers;
mod m20261201_000029_answers_left_behind;
mod m20261201_000030_configured_providers;
mod objects;
mod record;
mod reference;
mod refusal;
mod repairs;
mod replaceable;
mod rights;
mod roles;
mod runner;
mod schema_dump;
mod seed;
mod status;
mod step;
mod steps;
mod verify;

pub use anchor::{compare_ledgers, ledger_line};
pub use repairs::{repair, repair_within};
pub use runner::LOCK_PATIENCE;
pub use schema_dump::schema_sql;
pub use seed::{SeedSettings, seed, seed_with};
pub use status::{StepStatus, status};
pub use verify::{FindingSeverity, VerifyFinding, verify};

use connection::{query_all, query_one, table_exists};
use objects::{LOCKS, RECORD};
use runner::StepRunner;
use steps::STEPS;

const NO_TEMPORARY: &str = include_str!("temporary.sql");

/// What a run did. Empty lists and zero if there was nothing to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MigrationReport {
    /// Steps that were applied, by name.
    pub applied: Vec<String>,
    /// Functions, triggers, views, policies and rights whose text had changed, by part.
    pub replaced: Vec<String>,
    /// Rows that were inserted, and Stripe price ids that were filled in.
    pub seeded: u64,
}

/// All steps, in their order.
pub fn names() -> Vec<String> {
    STEPS.iter().map(|step| step.name.to_owned()).collect()
}

/// Migrates the database to this schema: roles, steps, replaceable objects whose text has changed, partitions.
pub async fn up(database_url: &str) -> anyhow::Result<MigrationReport> {
    up_within(database_url, LOCK_PATIENCE).await
}

/// The same, waiting for locks no longer than `patience` in total.
pub async fn up_within(database_url: &str, patience: Duration) -> anyhow::Result<MigrationReport> {
    let runner = StepRunner::start(database_url, patience).await?;
    let report = up_locked(&runner).await;
    runner.end(report).await
}

async fn up_locked(runner: &StepRunner) -> anyhow::Result<MigrationReport> {
    let connection = &runner.connection;
    let before = record::read(connection).await?;
    refusal::check(connection, &before).await?;
    roles::ensure(connection).await?;
    record::make(runner).await?;
    let mut applied = Vec::new();
    for step in STEPS.iter().filter(|step| !before.has(step.name)) {
        let parts_done = before.parts_done(step.name).unwrap_or_default();
        step.apply(runner, parts_done)
            .await
            .context("a step could not be applied; what came before it stays, and the next `up` goes on from there")?;
        applied.push(step.name.to_owned());
    }
    let replaced = replaceable::apply(runner).await?;
    runner.transaction("the right of PUBLIC to make temporary objects", &[NO_TEMPORARY]).await?;
    maintain_partitions(runner).await?;
    Ok(MigrationReport { applied, replaced, seeded: 0 })
}

/// Makes the missing months under the job's lock. The service's job drops old months; a start does not.
async fn maintain_partitions(runner: &StepRunner) -> anyhow::Result<()> {
    for row in
        query_all(&runner.connection, "SELECT w.parent, w.month::text AS month FROM public.partitions_to_make() w")
            .await?
    {
        let (parent, month): (String, String) = (row.try_get("", "parent")?, row.try_get("", "month")?);
        let make = format!("SELECT public.make_partition('{parent}', '{month}')");
        runner.transaction(&format!("the month {month} of {parent}"), &[CLAIM_PARTITIONS, &make]).await?;
        tracing::info!("made the month {month} of {parent}");
    }
    Ok(())
}

const CLAIM_PARTITIONS: &str =
    "SELECT l.name FROM public.product_base_locks l WHERE l.name = 'maintain_partitions' FOR UPDATE";

/// Undoes the last `steps`, or all of them, and returns their names. When all are undone, our rights in this database
/// are revoked too; the roles stay, since they belong to the whole cluster.
pub async fn down(database_url: &str, steps: Option<u32>) -> anyhow::Result<Vec<String>> {
    let runner = StepRunner::start(database_url, LOCK_PATIENCE).await?;
    let undone = down_locked(&runner, steps).await;
    runner.end(undone).await
}

async fn down_locked(runner: &StepRunner, steps: Option<u32>) -> anyhow::Result<Vec<String>> {
    let recorded = record::read(&runner.connection).await?;
    refusal::refuse_older_binary(&recorded)?;
    if let Some((step, _)) = recorded.unfinished.first() {
        bail!("the step {step} was begun and is not whole: run `up` first, and undo it then");
    }
    let mut undone = recorded.applied;
    undone.reverse();
    if let Some(steps) = steps {
        undone.truncate(usize::try_from(steps)?);
    }
    if !undone.is_empty() {
        record::make(runner).await?;
        replaceable::drop_all(runner).await?;
        for step in STEPS.iter().rev().filter(|step| undone.iter().any(|name| name == step.name)) {
            step.undo(runner).await.context(
                "a step could not be undone; what came after it is gone, and the next `down` goes on from there",
            )?;
        }
    }
    if table_exists(&runner.connection, RECORD).await? && record::read(&runner.connection).await?.applied.is_empty() {
        let give_back = if public_had_temporary(&runner.connection).await? { GIVE_TEMPORARY_BACK } else { "" };
        let texts = [WITHDRAW_RIGHTS, give_back, &record::drop_all()];
        runner.transaction("the rights in this database", &texts).await?;
    }
    Ok(undone)
}

/// Whether `temporary.sql` revoked from PUBLIC the right that a database has by default.
async fn public_had_temporary(connection: &DatabaseConnection) -> anyhow::Result<bool> {
    let asked = format!("SELECT EXISTS (SELECT FROM public.{LOCKS} l WHERE l.name = 'public_had_temporary') AS it");
    Ok(query_one(connection, &asked).await?.try_get("", "it")?)
}

const GIVE_TEMPORARY_BACK: &str = "DO $rights$ BEGIN \
     EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO PUBLIC', current_database()); END $rights$";

/// Revokes what `schema_rights.sql` granted. The last three roles of an identity provider keep their right.
const WITHDRAW_RIGHTS: &str = "DO $rights$ BEGIN \
     PERFORM set_config('client_min_messages', 'error', true); \
     EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM app_user, readonly_user', current_database()); \
     REVOKE USAGE ON SCHEMA public FROM app_service, app_user, readonly_user; \
     IF NOT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = 'auth' AND c.relname = 'users') THEN \
       REVOKE USAGE ON SCHEMA public FROM anon, authenticated, service_role; \
     END IF; END $rights$";

/// Drops and recreates all our objects under one lock. Tables of others stay.
pub async fn fresh(database_url: &str) -> anyhow::Result<MigrationReport> {
    let runner = StepRunner::start(database_url, LOCK_PATIENCE).await?;
    let report = match down_locked(&runner, None).await {
        Ok(_) => up_locked(&runner).await,
        Err(error) => Err(error),
    };
    runner.end(report).await
}
