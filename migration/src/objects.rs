//! The objects that are ours in a database, read from the SQL itself, so that there is no second list.
//!
//! Promise: no object of another team is replaced or dropped. Our functions and views have a comment; an object of the
//! same name without it stops `up` before any change (`refusal.rs`).

pub use crate::record::RECORD;
use crate::replaceable;
use crate::steps::STEPS;

/// One row for each job that runs once at a time; created by `MigrationLock` and dropped by the last `down`.
pub const LOCKS: &str = "product_base_locks";
pub const MARK: &str = "product-base";

/// The names between `before` and `after` in a SQL text, in their order, each once.
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

/// Every table of every step, without partitions and without the record of the steps.
pub fn tables() -> Vec<&'static str> {
    STEPS.iter().flat_map(crate::step::MigrationStep::tables).collect()
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
        assert!(tables.len() >= 46);
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
