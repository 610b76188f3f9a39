//! The record of the steps: which are applied, and how many parts of an unfinished one are done.
//!
//! Promise: a row is written in the transaction of the part that it records. The table has its own name, since another
//! team may use `seaql_migrations` in the same database. A database of an earlier release has its record there: our
//! rows are copied, and that table is still written while it has only our rows, so that processes and binaries of that
//! release can still read it.

use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseConnection, TransactionTrait};

use crate::connection::{name_array, query_all, query_one, table_exists};
use crate::runner::StepRunner;
use crate::step;
use crate::steps::STEPS;

pub const RECORD: &str = "product_base_migrations";
const RECORD_OF_BEFORE: &str = "seaql_migrations";

/// The content of the record.
#[derive(Debug, Default)]
pub struct RecordedStep {
    /// Steps that are fully applied, in their order.
    pub applied: Vec<String>,
    /// The steps that were begun, with the number of parts that are done.
    pub unfinished: Vec<(String, usize)>,
}

impl RecordedStep {
    pub fn has(&self, name: &str) -> bool {
        self.applied.iter().any(|applied| applied == name)
    }

    pub fn parts_done(&self, name: &str) -> Option<usize> {
        self.unfinished.iter().find(|(step, _)| step == name).map(|(_, parts)| *parts)
    }
}

/// The service's login cannot read the table, so it takes its role on first.
pub async fn read(connection: &DatabaseConnection) -> anyhow::Result<RecordedStep> {
    let is_ours = table_exists(connection, RECORD).await?;
    if !is_ours && !table_exists(connection, RECORD_OF_BEFORE).await? {
        return Ok(RecordedStep::default());
    }
    let table = if is_ours { RECORD } else { RECORD_OF_BEFORE };
    let transaction = connection.begin().await?;
    let may_read = query_one(
        &transaction,
        &format!(
            "SELECT has_table_privilege('public.{table}', 'SELECT') AND NOT row_security_active('public.{table}') AS it"
        ),
    )
    .await?
    .try_get::<bool>("", "it")?;
    if !may_read {
        transaction.execute_unprepared("SET LOCAL ROLE app_service").await?;
    }
    let sql = if is_ours {
        format!("SELECT version::text AS version, parts_done FROM public.{RECORD} ORDER BY version")
    } else {
        let ours = name_array(&crate::names());
        format!(
            "SELECT version::text AS version, NULL::integer AS parts_done FROM public.{RECORD_OF_BEFORE} WHERE version = ANY ({ours}) ORDER BY version"
        )
    };
    let mut recorded = RecordedStep::default();
    for row in query_all(&transaction, &sql).await? {
        let version = row.try_get::<String>("", "version")?;
        match row.try_get::<Option<i32>>("", "parts_done")? {
            None => recorded.applied.push(version),
            Some(parts) => recorded.unfinished.push((version, usize::try_from(parts)?)),
        }
    }
    transaction.commit().await?;
    Ok(recorded)
}

/// Creates the table, closed from the start, because Supabase grants new tables to its API roles. The record of an
/// earlier release is copied in the same transaction.
pub async fn make(runner: &StepRunner) -> anyhow::Result<()> {
    if table_exists(&runner.connection, RECORD).await? {
        return Ok(());
    }
    let create = create();
    let copy = format!(
        "INSERT INTO public.{RECORD} (version, applied_at) SELECT version, applied_at FROM public.{RECORD_OF_BEFORE} WHERE version = ANY ({})",
        name_array(&crate::names())
    );
    // On Supabase, service_role has rights on it by default.
    let close_before = where_before_is_ours(&format!(
        "REVOKE INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER ON public.{RECORD_OF_BEFORE} FROM service_role"
    ));
    let mut texts = vec![create.as_str()];
    if table_exists(&runner.connection, RECORD_OF_BEFORE).await? {
        texts.extend([copy.as_str(), &close_before]);
    }
    runner.transaction("the record of the steps", &texts).await?;
    Ok(())
}

/// The statements that create the table.
pub fn create() -> String {
    format!(
        "CREATE TABLE public.{RECORD} (version varchar NOT NULL, applied_at bigint NOT NULL, parts_done integer, \
         CONSTRAINT {RECORD}_pkey PRIMARY KEY (version), CONSTRAINT check_parts_done CHECK (parts_done >= 0)); {}",
        step::close(&[RECORD])
    )
}

/// Records how many parts of a step are done; with all of them the step is applied.
pub fn note(step: &str, parts_done: usize, parts: usize) -> String {
    let is_whole = parts_done == parts;
    let done = if is_whole { "NULL".to_owned() } else { parts_done.to_string() };
    let note = format!(
        "INSERT INTO public.{RECORD} (version, applied_at, parts_done) VALUES ('{step}', extract(epoch FROM now())::bigint, {done}) \
         ON CONFLICT (version) DO UPDATE SET applied_at = EXCLUDED.applied_at, parts_done = EXCLUDED.parts_done"
    );
    if !is_whole {
        return note;
    }
    let mirror = format!(
        "INSERT INTO public.{RECORD_OF_BEFORE} (version, applied_at) VALUES ('{step}', extract(epoch FROM now())::bigint) ON CONFLICT DO NOTHING"
    );
    format!("{note}; {}", where_before_is_ours(&mirror))
}

/// Removes a step from the record.
pub fn strike(step: &str) -> String {
    let mirror = format!("DELETE FROM public.{RECORD_OF_BEFORE} WHERE version = '{step}'");
    format!("DELETE FROM public.{RECORD} WHERE version = '{step}'; {}", where_before_is_ours(&mirror))
}

/// Drops the record, and that of an earlier release if only we wrote to it.
pub fn drop_all() -> String {
    let before = where_before_is_ours(&format!("DROP TABLE public.{RECORD_OF_BEFORE}"));
    // The old record is ours while it has the first step, so that row is removed last.
    format!("{before}; DROP TABLE public.{RECORD}")
}

/// A statement that runs only if the record of an earlier release exists and all its rows are ours.
fn where_before_is_ours(statement: &str) -> String {
    let ours = name_array(&STEPS.iter().map(|step| step.name).collect::<Vec<_>>());
    format!(
        "DO $before$ DECLARE ours boolean; BEGIN \
         IF pg_catalog.to_regclass('public.{RECORD_OF_BEFORE}') IS NULL OR NOT EXISTS (SELECT FROM pg_catalog.pg_policies \
            WHERE schemaname = 'public' AND tablename = '{RECORD_OF_BEFORE}' AND policyname = '{RECORD_OF_BEFORE}_service') THEN RETURN; END IF; \
         EXECUTE 'SELECT NOT EXISTS (SELECT FROM public.{RECORD_OF_BEFORE} WHERE version <> ALL ($1))' INTO ours USING {ours}; \
         IF ours THEN {statement}; END IF; END $before$"
    )
}
