//! Checks that stop a run before its first change.
//!
//! Promise: every name that a pending step will create is looked up first: tables, their partitions, indexes,
//! constraints with an index, types, views, functions. If another team uses one, or if the identity provider lacks what
//! our policies call, nothing is changed and no role is created. Cost: two statements.

use anyhow::bail;
use sea_orm_migration::sea_orm::ConnectionTrait;

use crate::connection::{name_array, query_all, query_one};
use crate::objects::{self, MARK, created};
use crate::record::RecordedStep;
use crate::step::{MigrationStep, index_names};
use crate::steps::STEPS;

pub async fn check<C: ConnectionTrait>(connection: &C, recorded: &RecordedStep) -> anyhow::Result<()> {
    refuse_older_binary(recorded)?;
    refuse_identity(connection).await?;
    refuse_foreign(connection, recorded).await
}

/// An older binary would put older texts over newer functions, and cannot undo steps that it does not know.
pub fn refuse_older_binary(recorded: &RecordedStep) -> anyhow::Result<()> {
    let known = |name: &str| STEPS.iter().any(|step| step.name == name);
    let names = recorded.applied.iter().chain(recorded.unfinished.iter().map(|(name, _)| name));
    match names.into_iter().find(|name| !known(name)) {
        Some(unknown) => {
            bail!("the database has the step {unknown}, which this binary does not know: migrate with the newer one")
        }
        None => Ok(()),
    }
}

/// Policies call `auth.uid()`. The provider of `auth.users` has it; without `auth.users` the first step creates both.
async fn refuse_identity<C: ConnectionTrait>(connection: &C) -> anyhow::Result<()> {
    let row = query_one(
        connection,
        "WITH auth AS (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = 'auth'), \
         users AS (SELECT c.oid FROM pg_catalog.pg_class c JOIN auth ON auth.oid = c.relnamespace WHERE c.relname = 'users') \
         SELECT EXISTS (SELECT FROM users) AS has_users, \
           EXISTS (SELECT FROM pg_catalog.pg_attribute a JOIN users u ON u.oid = a.attrelid JOIN pg_catalog.pg_index x ON x.indrelid = u.oid \
             WHERE a.attname = 'id' AND a.atttypid = 'pg_catalog.uuid'::pg_catalog.regtype AND x.indisunique AND x.indisvalid AND x.indpred IS NULL \
               AND x.indnkeyatts = 1 AND x.indkey[0] = a.attnum) AS has_id, \
           EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN auth ON auth.oid = p.pronamespace WHERE p.proname = 'uid' AND p.pronargs = 0 \
             AND p.prorettype = 'pg_catalog.uuid'::pg_catalog.regtype) AS has_uid, \
           (SELECT pg_catalog.string_agg(p.oid::pg_catalog.regprocedure::text, ', ') FROM pg_catalog.pg_proc p JOIN auth ON auth.oid = p.pronamespace \
             WHERE p.proname IN ('uid', 'jwt', 'role') AND p.pronargs = 0) AS functions",
    )
    .await?;
    let (has_users, has_key, answers_uuid): (bool, bool, bool) =
        (row.try_get("", "has_users")?, row.try_get("", "has_id")?, row.try_get("", "has_uid")?);
    match (has_users, row.try_get::<Option<String>>("", "functions")?) {
        (true, _) if !has_key => bail!(
            "the table auth.users has no column id of the type uuid with a primary or unique key, so nothing was changed: \
             profiles refer to it"
        ),
        (true, _) if !answers_uuid => bail!(
            "the table auth.users is there without a function auth.uid() that answers a uuid, so nothing was changed: every \
             policy calls it. Whoever provides auth.users provides auth.uid() too; without auth.users both are made here"
        ),
        (false, Some(functions)) => {
            bail!(
                "{functions} exist without a table auth.users, so nothing was changed: drop them, or use another database"
            )
        }
        _ => Ok(()),
    }
}

/// The steps that have not begun: the names that they create must be free.
fn untouched(recorded: &RecordedStep) -> impl Iterator<Item = &'static MigrationStep> {
    STEPS.iter().filter(|step| !recorded.has(step.name) && recorded.parts_done(step.name).is_none())
}

/// Every relation that the text creates: tables, partitions, indexes, and constraints that have an index.
fn relations(sql: &'static str) -> Vec<&'static str> {
    let mut names = created(sql, "CREATE TABLE public.", " ");
    names.extend(index_names(sql));
    for kind in [" PRIMARY KEY", " UNIQUE"] {
        names.extend(created(sql, "CONSTRAINT ", kind));
    }
    names
}

/// The tables of the text whose partitions are named when they are created.
fn partitioned(sql: &'static str) -> Vec<&'static str> {
    let statements = sql.split(';').filter(|statement| statement.contains(") PARTITION BY "));
    statements.flat_map(|statement| created(statement, "CREATE TABLE public.", " (")).collect()
}

async fn refuse_foreign<C: ConnectionTrait>(connection: &C, recorded: &RecordedStep) -> anyhow::Result<()> {
    let tables: Vec<&str> = untouched(recorded).flat_map(MigrationStep::tables).collect();
    let named: Vec<&str> = untouched(recorded).flat_map(|step| relations(step.up)).collect();
    let parents: Vec<&str> = untouched(recorded).flat_map(|step| partitioned(step.up)).collect();
    let sql = format!(
        "SELECT CASE c.relkind WHEN 'i' THEN 'index' WHEN 'I' THEN 'index' WHEN 'S' THEN 'sequence' WHEN 'c' THEN 'type' ELSE 'table or view' END \
           || ' public.' || c.relname AS name FROM pg_catalog.pg_class c \
         WHERE c.relnamespace = 'public'::regnamespace AND (c.relname = ANY ({named}) \
           OR c.relname ~ ('^(' || array_to_string({parents}, '|') || ')_(\\d+|\\d{{4}}_\\d{{2}})$') \
           OR (c.relname = ANY ({views}) AND coalesce(pg_catalog.obj_description(c.oid, 'pg_class'), '') NOT LIKE '{MARK}%')) \
         UNION SELECT 'type public.' || t.typname FROM pg_catalog.pg_type t \
         WHERE t.typnamespace = 'public'::regnamespace AND t.typrelid = 0 AND t.typelem = 0 AND t.typname = ANY ({tables} || {views}) \
         UNION SELECT 'function ' || p.oid::regprocedure FROM pg_catalog.pg_proc p \
         WHERE p.pronamespace = 'public'::regnamespace AND p.proname = ANY ({functions}) \
           AND coalesce(pg_catalog.obj_description(p.oid, 'pg_proc'), '') NOT LIKE '{MARK}%' ORDER BY 1",
        named = name_array(&named),
        parents = name_array(&parents),
        tables = name_array(&tables),
        views = name_array(&objects::views()),
        functions = name_array(&objects::functions()),
    );
    let mut foreign = Vec::new();
    for row in query_all(connection, &sql).await? {
        foreign.push(row.try_get::<String>("", "name")?);
    }
    if foreign.is_empty() {
        return Ok(());
    }
    bail!(
        "these objects exist and are not of this product, so nothing was changed: {}. Rename or drop them, or use \
         another database. A function that is meant to become ours is handed over by COMMENT ON FUNCTION .. IS '{MARK}'",
        foreign.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::{partitioned, relations};
    use crate::steps::STEPS;

    #[test]
    fn every_kind_of_name_is_known_before_it_is_given() {
        let named: Vec<&str> = STEPS.iter().flat_map(|step| relations(step.up)).collect();
        for name in [
            "plans",
            "plans_pkey",
            "api_keys_key_hash_key",
            "idx_plans_active",
            "usage_events_default",
            "idx_users_stripe_customer_id",
        ] {
            assert!(named.contains(&name), "{name}");
        }
        let parents: Vec<&str> = STEPS.iter().flat_map(|step| partitioned(step.up)).collect();
        assert_eq!(parents, ["usage_events", "idempotency_keys", "ai_usage_logs"]);
    }
}
