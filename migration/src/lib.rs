//! The schema of Product Base: its steps, what is replaced in place, its seeds and its checks.
//!
//! Promise: `up` twice is once; a run that was killed is finished by the next; two runners wait for each other;
//! `down` leaves nothing of ours but the roles, and touches nothing of anybody else's (`auth` of Supabase included).
//! Cost of an `up` with nothing to do: two connections and about fifteen statements.

use anyhow::{Context, bail};
use sea_orm_migration::MigratorTrait;
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseConnection};

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
mod m20261130_000016_address_digests;
mod m20261201_000014_key_lineages;
mod m20261201_000015_count_by_lineage;
mod m20261201_000018_proofs_of_sessions;
mod m20261201_000019_second_factors;
mod m20261201_000020_fence_of_sums;
mod m20261201_000021_subscriptions_and_defaults;
mod m20261201_000026_books_outlive_the_person;
mod objects;
mod replaceable;
mod roles;
mod schema_dump;
mod seed;
mod status;
mod step;
mod steps;
mod verify;

pub use schema_dump::schema_sql;
pub use seed::{SeedSettings, seed, seed_with};
pub use status::{StepStatus, status};
pub use verify::{Finding, Severity, verify};

use connection::{connect, query_all, query_one, table_exists};
use lock::Lock;
use objects::{LOCKS, RECORD};
use steps::{Migrator, STEPS};

const NO_TEMPORARY: &str = include_str!("temporary.sql");

/// What a run did. Empty lists and zero: there was nothing to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
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

/// Brings the database to this schema: roles, steps, replaceable objects whose text has changed, partitions.
pub async fn up(database_url: &str) -> anyhow::Result<Report> {
    let lock = Lock::acquire(database_url).await?;
    let connection = connect(database_url).await?;
    let report = up_locked(&connection).await;
    lock.end(connection, report).await
}

async fn up_locked(connection: &DatabaseConnection) -> anyhow::Result<Report> {
    roles::ensure(connection).await?;
    let before = status::applied(connection).await?;
    refuse_older_binary(&before)?;
    let pending: Vec<_> = STEPS.iter().filter(|step| !before.iter().any(|name| name == step.name)).collect();
    let pending_tables: Vec<&str> = pending.iter().flat_map(|step| step.tables()).collect();
    objects::refuse_foreign(connection, &pending_tables).await?;
    if !pending.is_empty() {
        make_record(connection).await?;
        Migrator::up(connection, None)
            .await
            .context("a step could not be applied; what came before it stays, and the next `up` goes on from there")?;
    }
    let replaced = replaceable::apply(connection).await?;
    connection
        .execute_unprepared(NO_TEMPORARY)
        .await
        .context("the right to make temporary objects could not be taken from PUBLIC")?;
    for row in query_all(connection, "SELECT public.maintain_partitions() AS line").await? {
        tracing::info!("{}", row.try_get::<String>("", "line")?);
    }
    Ok(Report { applied: pending.iter().map(|step| step.name.to_owned()).collect(), replaced, seeded: 0 })
}

/// An older binary would put older texts over newer functions, and cannot undo what it does not know.
fn refuse_older_binary(applied: &[String]) -> anyhow::Result<()> {
    match applied.iter().find(|name| !STEPS.iter().any(|step| step.name == name.as_str())) {
        Some(unknown) => {
            bail!("the database has the step {unknown}, which this binary does not know: migrate with the newer one")
        }
        None => Ok(()),
    }
}

/// The table is sea-orm's; it is made here, closed from its first moment, because Supabase gives new tables to everybody.
async fn make_record(connection: &DatabaseConnection) -> anyhow::Result<()> {
    if table_exists(connection, RECORD).await? {
        return Ok(());
    }
    let create = format!(
        "CREATE TABLE IF NOT EXISTS public.{RECORD} (version varchar NOT NULL, applied_at bigint NOT NULL, \
         CONSTRAINT {RECORD}_pkey PRIMARY KEY (version)); {}",
        step::close(&[RECORD])
    );
    connection.execute_unprepared(&create).await?;
    Ok(())
}

/// Undoes the last `steps`, or all of them, and answers their names. With all of them gone, our rights in this
/// database go too; the roles stay, since they belong to the whole cluster.
pub async fn down(database_url: &str, steps: Option<u32>) -> anyhow::Result<Vec<String>> {
    let lock = Lock::acquire(database_url).await?;
    let connection = connect(database_url).await?;
    let undone = down_locked(&connection, steps).await;
    lock.end(connection, undone).await
}

async fn down_locked(connection: &DatabaseConnection, steps: Option<u32>) -> anyhow::Result<Vec<String>> {
    let mut undone = status::applied(connection).await?;
    refuse_older_binary(&undone)?;
    undone.reverse();
    if let Some(steps) = steps {
        undone.truncate(usize::try_from(steps)?);
    }
    let public_had_temporary = public_had_temporary(connection).await?;
    if !undone.is_empty() {
        replaceable::drop_all(connection).await?;
        Migrator::down(connection, steps).await.context(
            "a step could not be undone; what came after it is gone, and the next `down` goes on from there",
        )?;
    }
    if table_exists(connection, RECORD).await? && status::applied(connection).await?.is_empty() {
        withdraw_rights(connection).await?;
        if public_had_temporary {
            let give_back = "DO $rights$ BEGIN EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO PUBLIC', current_database()); END $rights$";
            connection.execute_unprepared(give_back).await?;
        }
        connection.execute_unprepared(&format!("DROP TABLE public.{RECORD}")).await?;
    }
    Ok(undone)
}

/// Whether `temporary.sql` took from PUBLIC what a database gives by default.
async fn public_had_temporary(connection: &DatabaseConnection) -> anyhow::Result<bool> {
    let asked = format!("SELECT EXISTS (SELECT FROM public.{LOCKS} l WHERE l.name = 'public_had_temporary') AS it");
    Ok(query_one(connection, &asked).await?.try_get("", "it")?)
}

/// What `schema_rights.sql` gave. Where an identity provider is, the last three roles are its own and keep their right.
async fn withdraw_rights(connection: &DatabaseConnection) -> anyhow::Result<()> {
    connection
        .execute_unprepared(
            "DO $rights$ BEGIN \
             PERFORM set_config('client_min_messages', 'error', true); \
             EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM app_user, readonly_user', current_database()); \
             REVOKE USAGE ON SCHEMA public FROM app_service, app_user, readonly_user; \
             IF NOT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 WHERE n.nspname = 'auth' AND c.relname = 'users') THEN \
               REVOKE USAGE ON SCHEMA public FROM anon, authenticated, service_role; \
             END IF; END $rights$",
        )
        .await?;
    Ok(())
}

/// Puts row-level security on wherever it is off, and applies every replaceable object, whatever was applied last: for a
/// database in which somebody changed by hand what `verify` now finds. Rows and tables stay as they are.
pub async fn repair(database_url: &str) -> anyhow::Result<Report> {
    let lock = Lock::acquire(database_url).await?;
    let connection = connect(database_url).await?;
    let report = repair_locked(&connection).await;
    lock.end(connection, report).await
}

async fn repair_locked(connection: &DatabaseConnection) -> anyhow::Result<Report> {
    let mut tables = objects::tables();
    tables.extend([RECORD, LOCKS]);
    if table_exists(connection, "replaceable_checksums").await? {
        let forget = format!("{}; DELETE FROM public.replaceable_checksums", step::protect(&tables));
        connection.execute_unprepared(&forget).await?;
    }
    up_locked(connection).await
}

/// Everything of ours away and made again, in one lock. Tables of others stay.
pub async fn fresh(database_url: &str) -> anyhow::Result<Report> {
    let lock = Lock::acquire(database_url).await?;
    let connection = connect(database_url).await?;
    let report = match down_locked(&connection, None).await {
        Ok(_) => up_locked(&connection).await,
        Err(error) => Err(error),
    };
    lock.end(connection, report).await
}
