//! What is ours in a database: read out of the SQL itself, so that no second list can disagree with it.
//!
//! Promise: nothing that another team made is replaced or dropped. Functions and views of ours carry a comment;
//! an object of the same name without it stops `up` before anything is changed.

use anyhow::bail;
use sea_orm_migration::sea_orm::ConnectionTrait;

use crate::connection::{name_array, query_all};
use crate::replaceable;
use crate::steps::STEPS;

/// sea-orm's own record of the steps; made closed by `up` and dropped by the last `down`.
pub const RECORD: &str = "seaql_migrations";
/// One row for each work that is done once at a time; made by `Lock` and dropped by the last `down`.
pub const LOCKS: &str = "product_base_locks";
pub const MARK: &str = "product-base";

/// The names between `before` and `after` in a text of SQL, in their order, each once.
pub fn created<'a>(sql: &'a str, before: &str, after: &str) -> Vec<&'a str> {
    let mut names = Vec::new();
    for rest in sql.split(before).skip(1) {
        let end =
            rest.find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')).unwrap_or(rest.len());
        let (name, tail) = rest.split_at(end);
        if tail.starts_with(after) && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Every table of every step, without partitions and without `seaql_migrations`.
pub fn tables() -> Vec<&'static str> {
    STEPS.iter().flat_map(crate::step::Step::tables).collect()
}

pub fn views() -> Vec<&'static str> {
    created(replaceable::VIEWS, "CREATE VIEW public.", " WITH")
}

pub fn functions() -> Vec<&'static str> {
    replaceable::FUNCTIONS
        .iter()
        .chain(&replaceable::BUILTIN_FUNCTIONS)
        .flat_map(|sql| created(sql, "CREATE OR REPLACE FUNCTION public.", "("))
        .collect()
}

/// Stops before the first change when a name that is needed belongs to somebody else.
pub async fn refuse_foreign<C: ConnectionTrait>(connection: &C, pending_tables: &[&str]) -> anyhow::Result<()> {
    let sql = format!(
        "SELECT 'table or view public.' || c.relname AS name FROM pg_catalog.pg_class c \
         WHERE c.relnamespace = 'public'::regnamespace AND (c.relname = ANY ({tables}) \
           OR (c.relname = ANY ({views}) AND coalesce(pg_catalog.obj_description(c.oid, 'pg_class'), '') NOT LIKE '{MARK}%')) \
         UNION ALL SELECT 'function ' || p.oid::regprocedure FROM pg_catalog.pg_proc p \
         WHERE p.pronamespace = 'public'::regnamespace AND p.proname = ANY ({functions}) \
           AND coalesce(pg_catalog.obj_description(p.oid, 'pg_proc'), '') NOT LIKE '{MARK}%' ORDER BY 1",
        tables = name_array(pending_tables),
        views = name_array(&views()),
        functions = name_array(&functions()),
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
    use super::{created, functions, tables, views};

    #[test]
    fn names_are_read_out_of_the_sql() {
        let sql = "CREATE TABLE public.a (x int); CREATE TABLE public.a_default PARTITION OF public.a DEFAULT; CREATE TABLE public.b (y int)";
        assert_eq!(created(sql, "CREATE TABLE public.", " ("), ["a", "b"]);
    }

    #[test]
    fn everything_of_the_seeds_is_there() {
        let tables = tables();
        for name in [
            "users",
            "plans",
            "features",
            "plan_features",
            "user_subscriptions",
            "ai_usage_logs",
            "organizations",
            "learning_progress",
            "usage_rollups",
            "model_prices",
            "ai_answers",
        ] {
            assert!(tables.contains(&name), "no table {name}");
        }
        assert_eq!(tables.len(), 42);
        assert_eq!(views(), ["user_plan_summary", "user_feature_access", "ai_usage_monthly", "integrity_findings"]);
        for name in [
            "update_updated_at_column",
            "check_plan_change_consistency",
            "check_feature_access",
            "check_usage_limit",
            "identity_register",
        ] {
            assert!(functions().contains(&name), "no function {name}");
        }
    }
}
