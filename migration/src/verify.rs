//! What an operator wants to hear before trusting a database: is it whole, is it closed, are its rows consistent?
//!
//! Promise: nothing is changed. Rights are compared by giving them all once more in a transaction that is rolled
//! back, so there is no second list of them. Cost: the integrity checks read whole tables.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::Context;
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseConnection, TransactionTrait};

use crate::connection::{auth_is_ours, connect, name_array, query_all, table_exists};
use crate::lock::Lock;
use crate::objects::{self, LOCKS, RECORD};
use crate::{record, replaceable, steps};

const CHECKS: &str = include_str!("verify.sql");

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something is wrong and must be repaired.
    Error,
    /// It works, and somebody should know.
    Warning,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    pub severity: Severity,
    pub finding: String,
    pub subject: String,
    pub detail: String,
}

impl Finding {
    fn error(finding: &str, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { severity: Severity::Error, finding: finding.to_owned(), subject: subject.into(), detail: detail.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(formatter, "{severity} {} {}: {}", self.finding, self.subject, self.detail)
    }
}

/// Runs over the direct URL, as the login that migrates: only the owner may compare rights.
pub async fn verify(database_url: &str) -> anyhow::Result<Vec<Finding>> {
    let lock = Lock::acquire_if_there(database_url).await?;
    let connection = connect(database_url).await?;
    let findings = findings(&connection).await;
    match lock {
        Some(lock) => lock.end(connection, findings).await,
        None => findings,
    }
}

async fn findings(connection: &DatabaseConnection) -> anyhow::Result<Vec<Finding>> {
    let mut findings = pending_steps(connection).await?;
    // On a schema that is not whole the other checks would only name what is missing again.
    if !findings.is_empty() {
        return Ok(findings);
    }
    for part in replaceable::outdated(connection).await? {
        findings.push(Finding::error("OUTDATED_OBJECT", part.name, "the text in the database is another: run up"));
    }
    if findings.is_empty() {
        findings.extend(sql_checks(connection).await?);
        findings.extend(compare_rights(connection).await?);
    }
    findings.sort();
    Ok(findings)
}

async fn pending_steps(connection: &DatabaseConnection) -> anyhow::Result<Vec<Finding>> {
    let applied = record::read(connection).await?.applied;
    let mut findings = Vec::new();
    for step in steps::STEPS {
        if !applied.iter().any(|name| name == step.name) {
            findings.push(Finding::error("PENDING_STEP", step.name, "the step was not applied: run up"));
        }
    }
    for name in applied {
        if !steps::STEPS.iter().any(|step| step.name == name) {
            findings.push(Finding::error("UNKNOWN_STEP", name, "this binary is older than the database"));
        }
    }
    if !table_exists(connection, RECORD).await? {
        findings.push(Finding::error("NO_SCHEMA", RECORD, "nothing was migrated here: run up"));
    }
    Ok(findings)
}

async fn sql_checks(connection: &DatabaseConnection) -> anyhow::Result<Vec<Finding>> {
    let (policy_tables, policy_names): (Vec<_>, Vec<_>) = replaceable::policies().into_iter().unzip();
    let mut tables = objects::tables();
    tables.extend([RECORD, LOCKS]);
    let mut findings = Vec::new();
    for (title, query) in replaceable::sections(CHECKS) {
        let query = query
            .replace("{tables}", &name_array(&tables))
            .replace("{views}", &name_array(&objects::views()))
            .replace("{functions}", &name_array(&objects::functions()))
            .replace("{policy_tables}", &name_array(&policy_tables))
            .replace("{policy_names}", &name_array(&policy_names));
        let rows =
            query_all(connection, &query).await.with_context(|| format!("the check \"{title}\" could not be made"))?;
        for row in rows {
            findings.push(Finding {
                severity: if row.try_get_by_index::<String>(0)? == "error" {
                    Severity::Error
                } else {
                    Severity::Warning
                },
                finding: row.try_get_by_index(1)?,
                subject: row.try_get_by_index(2)?,
                detail: row.try_get_by_index(3)?,
            });
        }
    }
    Ok(findings)
}

async fn compare_rights(connection: &DatabaseConnection) -> anyhow::Result<Vec<Finding>> {
    let builtin_identity = auth_is_ours(connection).await?;
    let transaction = connection.begin().await?;
    transaction.execute_unprepared("SET LOCAL lock_timeout = '5s'").await?;
    let found = rights(&transaction).await?;
    for text in replaceable::rights(builtin_identity) {
        transaction.execute_unprepared(&text).await.context(
            "rights could not be compared: verify needs the login that migrates, over PB__DATABASE__DIRECT_URL",
        )?;
    }
    let meant = rights(&transaction).await?;
    transaction.rollback().await?;
    let excess = found
        .difference(&meant)
        .map(|right| Finding::error("EXCESS_RIGHT", right.clone(), "beyond the list: run repair"));
    let missing = meant
        .difference(&found)
        .map(|right| Finding::error("MISSING_RIGHT", right.clone(), "on the list and not given: run repair"));
    Ok(excess.chain(missing).collect())
}

/// Every right of the roles that the list speaks of, on our tables, partitions, views and functions.
async fn rights<C: ConnectionTrait>(connection: &C) -> anyhow::Result<BTreeSet<String>> {
    let mut relations = objects::tables();
    relations.extend([RECORD, LOCKS]);
    relations.extend(objects::views());
    let relations = name_array(&relations);
    let sql = format!(
        "WITH ours AS (SELECT c.oid, c.relacl, c.relowner FROM pg_catalog.pg_class c \
           LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid LEFT JOIN pg_catalog.pg_class p ON p.oid = i.inhparent \
           WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND coalesce(p.relname, c.relname) = ANY ({relations})), \
         rights AS ( \
           SELECT o.oid::regclass::text AS object, x.grantee, x.privilege_type AS privilege FROM ours o CROSS JOIN LATERAL aclexplode(o.relacl) x \
           UNION ALL SELECT o.oid::regclass || '.' || a.attname, x.grantee, x.privilege_type FROM ours o \
             JOIN pg_catalog.pg_attribute a ON a.attrelid = o.oid CROSS JOIN LATERAL aclexplode(a.attacl) x \
           UNION ALL SELECT p.oid::regprocedure::text, x.grantee, x.privilege_type FROM pg_catalog.pg_proc p \
             CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x \
             WHERE p.pronamespace = 'public'::regnamespace AND p.proname = ANY ({functions})) \
         SELECT CASE WHEN r.grantee = 0 THEN 'PUBLIC' ELSE r.grantee::regrole::text END || ' ' || r.privilege || ' ' || r.object AS line FROM rights r \
         WHERE r.grantee = 0 OR r.grantee::regrole::text IN ('anon', 'authenticated', 'service_role', 'app_service', 'app_user', 'readonly_user')",
        functions = name_array(&objects::functions()),
    );
    let mut lines = BTreeSet::new();
    for row in query_all(connection, &sql).await? {
        lines.insert(row.try_get::<String>("", "line")?);
    }
    Ok(lines)
}
