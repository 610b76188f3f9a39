//! Functions, triggers, views, policies and rights: texts that replace the objects in the database.
//!
//! Promise: a text is applied if it differs from the one applied last. Each part has its own transaction, which the
//! runner repeats until it gets its locks, so a start does not take ACCESS EXCLUSIVE on every table. Cost: one SELECT
//! when nothing has changed.

use std::collections::BTreeMap;

use anyhow::Context;
use sea_orm_migration::sea_orm::{ConnectionTrait, DbBackend, Statement};

use crate::connection::{auth_is_ours, name_array, query_all};
use crate::objects::{self, MARK};
use crate::runner::StepRunner;

pub const FUNCTIONS: [&str; 12] = [
    include_str!("replaceable/functions/callers.sql"),
    include_str!("replaceable/functions/identity.sql"),
    include_str!("replaceable/functions/entitlements.sql"),
    include_str!("replaceable/functions/usage.sql"),
    include_str!("replaceable/functions/ledger.sql"),
    include_str!("replaceable/functions/rows.sql"),
    include_str!("replaceable/functions/maintenance.sql"),
    include_str!("replaceable/functions/totals.sql"),
    include_str!("replaceable/functions/retention.sql"),
    include_str!("replaceable/functions/integrity.sql"),
    include_str!("replaceable/functions/proofs.sql"),
    include_str!("replaceable/functions/organizations.sql"),
];
pub const BUILTIN_FUNCTIONS: [&str; 2] = [
    include_str!("replaceable/functions/claims_builtin.sql"),
    include_str!("replaceable/functions/identity_builtin.sql"),
];
pub const VIEWS: &str = include_str!("replaceable/views.sql");
pub const POLICIES: &str = include_str!("replaceable/policies.sql");
pub const TRIGGERS: &str = include_str!("replaceable/triggers.sql");
pub const GRANTS: &str = include_str!("replaceable/grants.sql");
const BUILTIN_TRIGGERS: &str = include_str!("replaceable/triggers_builtin.sql");
const VIEW_RIGHTS: &str = include_str!("replaceable/view_rights.sql");
const SCHEMA_RIGHTS: &str = include_str!("replaceable/schema_rights.sql");
const EXECUTE: &str = include_str!("replaceable/functions/execute.sql");
const BUILTIN_EXECUTE: &str = include_str!("replaceable/functions/execute_builtin.sql");

const OUR_ROLES: &str = "PUBLIC, anon, authenticated, app_service, app_user, readonly_user";

/// One text with one checksum, applied in one transaction.
pub struct ReplaceablePart {
    pub name: String,
    pub sql: String,
}

/// Every part, in the order of their dependencies.
pub fn parts(builtin_identity: bool) -> Vec<ReplaceablePart> {
    let mut parts = vec![ReplaceablePart { name: "schema_rights".into(), sql: SCHEMA_RIGHTS.into() }];
    parts.push(function_part("functions", &FUNCTIONS, EXECUTE));
    if builtin_identity {
        parts.push(function_part("functions_builtin", &BUILTIN_FUNCTIONS, BUILTIN_EXECUTE));
        parts.push(ReplaceablePart { name: "triggers_builtin".into(), sql: BUILTIN_TRIGGERS.into() });
    }
    parts.extend(
        sections(TRIGGERS)
            .map(|(table, sql)| ReplaceablePart { name: format!("triggers/{table}"), sql: sql.to_owned() }),
    );
    parts.push(view_part());
    parts.extend(sections(POLICIES).map(|(table, sql)| policy_part(table, sql)));
    parts.extend(grant_parts());
    parts
}

/// The sections of a file: each begins with a line `-- @ <table>`.
pub fn sections(sql: &str) -> impl Iterator<Item = (&str, &str)> {
    sql.split("-- @ ")
        .skip(1)
        .filter_map(|section| section.split_once('\n'))
        .map(|(name, body)| (name.trim(), body.trim()))
}

/// Functions and their rights in one transaction: by default PUBLIC may execute a new function.
fn function_part(name: &str, texts: &[&str], execute: &str) -> ReplaceablePart {
    ReplaceablePart { name: name.to_owned(), sql: format!("{}\n{}", texts.join("\n"), function_rights(texts, execute)) }
}

fn function_rights(texts: &[&str], execute: &str) -> String {
    let names: Vec<&str> =
        texts.iter().flat_map(|sql| objects::created(sql, "CREATE OR REPLACE FUNCTION public.", "(")).collect();
    format!(
        "DO $rights$ DECLARE target regprocedure; BEGIN FOR target IN \
           SELECT p.oid::regprocedure FROM pg_catalog.pg_proc p \
           WHERE p.pronamespace = 'public'::regnamespace AND p.proname = ANY ({}) \
         LOOP \
           EXECUTE format('REVOKE ALL ON FUNCTION %s FROM {OUR_ROLES}, service_role', target); \
           EXECUTE format('COMMENT ON FUNCTION %s IS ''{MARK}''', target); \
         END LOOP; END $rights$;\n{execute}",
        name_array(&names)
    )
}

/// All our rights again, without the objects themselves: `verify` compares the database with the result.
pub fn rights(builtin_identity: bool) -> Vec<String> {
    let mut texts = vec![function_rights(&FUNCTIONS, EXECUTE), VIEW_RIGHTS.to_owned()];
    if builtin_identity {
        texts.push(function_rights(&BUILTIN_FUNCTIONS, BUILTIN_EXECUTE));
    }
    texts.extend(grant_parts().map(|part| part.sql));
    texts
}

fn view_part() -> ReplaceablePart {
    let marks: Vec<String> =
        objects::views().iter().map(|view| format!("COMMENT ON VIEW public.{view} IS '{MARK}';\n")).collect();
    ReplaceablePart { name: "views".into(), sql: format!("{VIEWS}\n{VIEW_RIGHTS}\n{}", marks.concat()) }
}

fn policy_part(table: &str, body: &str) -> ReplaceablePart {
    let drops: Vec<String> = policy_names(body)
        .into_iter()
        .map(|policy| format!("DROP POLICY IF EXISTS {policy} ON public.{table};\n"))
        .collect();
    ReplaceablePart { name: format!("policies/{table}"), sql: format!("{}{body}", drops.concat()) }
}

fn policy_names(body: &str) -> Vec<&str> {
    objects::created(body, "CREATE POLICY ", " ON public.")
}

/// Every policy of ours with its table.
pub fn policies() -> Vec<(&'static str, &'static str)> {
    sections(POLICIES)
        .flat_map(|(table, body)| policy_names(body).into_iter().map(move |policy| (table, policy)))
        .collect()
}

/// The rights on tables. Partitions are accessed only through their parent, so they have no rights.
fn grant_parts() -> impl Iterator<Item = ReplaceablePart> {
    sections(GRANTS).map(|(table, body)| ReplaceablePart {
        name: format!("grants/{table}"),
        sql: format!(
            "REVOKE ALL ON TABLE public.{table} FROM {OUR_ROLES};\n\
             DO $rights$ DECLARE target regclass; BEGIN FOR target IN \
               SELECT i.inhrelid::regclass FROM pg_catalog.pg_inherits i WHERE i.inhparent = 'public.{table}'::regclass \
             LOOP EXECUTE format('REVOKE ALL ON TABLE %s FROM {OUR_ROLES}, service_role', target); END LOOP; \
             IF pg_catalog.current_setting('server_version_num')::integer >= 170000 THEN \
               EXECUTE 'REVOKE MAINTAIN ON TABLE public.{table} FROM service_role'; END IF; END $rights$;\n\
             REVOKE TRUNCATE, REFERENCES, TRIGGER ON TABLE public.{table} FROM service_role;\n{body}"
        ),
    })
}

/// Applies the parts that have changed and returns their names.
pub async fn apply(runner: &StepRunner) -> anyhow::Result<Vec<String>> {
    let mut applied = Vec::new();
    for part in outdated(&runner.connection).await? {
        apply_part(runner, &part).await.with_context(|| format!("{} could not be replaced", part.name))?;
        tracing::debug!("replaced {}", part.name);
        applied.push(part.name);
    }
    Ok(applied)
}

/// The parts whose text differs from the one applied last.
pub async fn outdated<C: ConnectionTrait>(connection: &C) -> anyhow::Result<Vec<ReplaceablePart>> {
    let mut known = BTreeMap::new();
    let rows = query_all(connection, "SELECT name, checksum FROM public.replaceable_checksums")
        .await
        .context("what is installed cannot be read: migrate with the login that owns the tables")?;
    for row in rows {
        known.insert(row.try_get::<String>("", "name")?, row.try_get::<String>("", "checksum")?);
    }
    let parts = parts(auth_is_ours(connection).await?);
    let texts: Vec<String> = parts.iter().map(|part| part.sql.clone()).collect();
    let rows = connection
        .query_all_raw(Statement::from_sql_and_values(
            DbBackend::Postgres,
            "SELECT encode(sha256(convert_to(t.sql, 'UTF8')), 'hex') AS checksum FROM unnest($1::text[]) WITH ORDINALITY AS t (sql, n) ORDER BY t.n",
            [texts.into()],
        ))
        .await?;
    let mut changed = Vec::new();
    for (part, row) in parts.into_iter().zip(rows) {
        if known.get(&part.name) != Some(&row.try_get::<String>("", "checksum")?) {
            changed.push(part);
        }
    }
    Ok(changed)
}

async fn apply_part(runner: &StepRunner, part: &ReplaceablePart) -> anyhow::Result<()> {
    // The checksum belongs to the applied text: both are written in one transaction.
    let note = format!(
        "INSERT INTO public.replaceable_checksums (name, checksum) VALUES ({name}, encode(sha256(convert_to({sql}, 'UTF8')), 'hex')) \
         ON CONFLICT (name) DO UPDATE SET checksum = EXCLUDED.checksum, applied_at = CURRENT_TIMESTAMP",
        name = literal(&part.name),
        sql = literal(&part.sql),
    );
    runner.transaction(&part.name, &[&part.sql, &note]).await?;
    Ok(())
}

/// A text as a SQL literal, whatever `standard_conforming_strings` is.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Drops all of it in one transaction, before steps are undone. Remaining tables are closed to all but their owner
/// until the next `up`. Nothing is dropped by CASCADE: an object of another team that depends on ours stops it.
pub async fn drop_all(runner: &StepRunner) -> anyhow::Result<()> {
    let views: Vec<String> =
        objects::views().iter().map(|view| format!("DROP VIEW IF EXISTS public.{view};")).collect();
    let views = views.concat();
    let (policy_tables, policy_names): (Vec<_>, Vec<_>) = policies().into_iter().unzip();
    let sql = format!(
        "DO $drop$ DECLARE target record; BEGIN \
         FOR target IN SELECT p.tablename, p.policyname FROM pg_catalog.pg_policies p \
           JOIN unnest({policy_tables}, {policy_names}) AS ours (tab, pol) ON ours.tab = p.tablename AND ours.pol = p.policyname \
           WHERE p.schemaname = 'public' \
         LOOP EXECUTE format('DROP POLICY %I ON public.%I', target.policyname, target.tablename); END LOOP; \
         FOR target IN SELECT t.tgname, c.oid::regclass AS tab FROM pg_catalog.pg_trigger t \
           JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_proc f ON f.oid = t.tgfoid \
           WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND f.pronamespace = 'public'::regnamespace AND f.proname = ANY ({functions}) \
             AND ((c.relnamespace = 'public'::regnamespace AND c.relname = ANY ({tables})) \
               OR pg_catalog.obj_description(t.oid, 'pg_trigger') LIKE '{MARK}%') \
         LOOP EXECUTE format('DROP TRIGGER %I ON %s', target.tgname, target.tab); END LOOP; \
         FOR target IN SELECT p.oid::regprocedure AS name FROM pg_catalog.pg_proc p \
           WHERE p.pronamespace = 'public'::regnamespace AND p.proname = ANY ({functions}) \
             AND pg_catalog.obj_description(p.oid, 'pg_proc') LIKE '{MARK}%' \
         LOOP EXECUTE format('DROP FUNCTION %s', target.name); END LOOP; \
         IF to_regclass('public.replaceable_checksums') IS NOT NULL THEN DELETE FROM public.replaceable_checksums; END IF; \
         END $drop$",
        policy_tables = name_array(&policy_tables),
        policy_names = name_array(&policy_names),
        functions = name_array(&objects::functions()),
        tables = name_array(&objects::tables()),
    );
    runner.transaction("the dropping of views, triggers, policies and functions", &[&views, &sql]).await.context(
        "views, triggers or functions of ours could not be dropped; if something of another team depends on them, drop that first",
    )?;
    Ok(())
}
