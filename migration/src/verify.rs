//! Checks of a whole database for an operator: is the schema complete, is it closed, are its rows consistent?
//!
//! Promise: nothing is changed. Rights are compared by granting them all again in a transaction that is rolled back,
//! and objects with those that the steps make in another (`reference.rs`), so there is no second list of either. Cost:
//! the integrity checks read whole tables.

use std::fmt;

use anyhow::Context;
use sea_orm_migration::sea_orm::DatabaseConnection;

use crate::connection::{auth_is_ours, connect, name_array, query_all, table_exists};
use crate::lock::MigrationLock;
use crate::objects::{self, LOCKS, RECORD};
use crate::reference::{self, SchemaState};
use crate::{record, replaceable, rights, steps};

const CHECKS: &str = include_str!("verify.sql");
/// Findings that are more specific than "changed".
const OBJECT_CHECKS: [&str; 2] = ["DEFINER_SEARCH_PATH", "VIEW_AS_OWNER"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingSeverity {
    /// An error that must be repaired.
    Error,
    /// It works, but an operator should know.
    Warning,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VerifyFinding {
    pub severity: FindingSeverity,
    pub finding: String,
    pub subject: String,
    pub detail: String,
}

impl VerifyFinding {
    fn error(finding: &str, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            severity: FindingSeverity::Error,
            finding: finding.to_owned(),
            subject: subject.into(),
            detail: detail.into(),
        }
    }
}

impl fmt::Display for VerifyFinding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            FindingSeverity::Error => "error",
            FindingSeverity::Warning => "warning",
        };
        write!(formatter, "{severity} {} {}: {}", self.finding, self.subject, self.detail)
    }
}

/// Needs the direct URL and the login that migrates: only the owner can compare rights.
pub async fn verify(database_url: &str) -> anyhow::Result<Vec<VerifyFinding>> {
    let lock = MigrationLock::acquire_if_there(database_url).await?;
    let connection = connect(database_url).await?;
    let findings = findings(&connection).await;
    match lock {
        Some(lock) => lock.end(connection, findings).await,
        None => findings,
    }
}

async fn findings(connection: &DatabaseConnection) -> anyhow::Result<Vec<VerifyFinding>> {
    let mut findings = pending_steps(connection).await?;
    // On an incomplete schema the other checks would only report the missing objects again.
    if !findings.is_empty() {
        return Ok(findings);
    }
    for part in replaceable::outdated(connection).await? {
        findings.push(VerifyFinding::error(
            "OUTDATED_OBJECT",
            part.name,
            "the text in the database is another: run up",
        ));
    }
    if findings.is_empty() {
        findings.extend(sql_checks(connection).await?);
        findings.extend(compare_rights(connection).await?);
        let objects = compare_objects(connection, &findings).await?;
        findings.extend(objects);
    }
    findings.sort();
    Ok(findings)
}

async fn pending_steps(connection: &DatabaseConnection) -> anyhow::Result<Vec<VerifyFinding>> {
    let applied = record::read(connection).await?.applied;
    let mut findings = Vec::new();
    for step in steps::STEPS {
        if !applied.iter().any(|name| name == step.name) {
            findings.push(VerifyFinding::error("PENDING_STEP", step.name, "the step was not applied: run up"));
        }
    }
    for name in applied {
        if !steps::STEPS.iter().any(|step| step.name == name) {
            findings.push(VerifyFinding::error("UNKNOWN_STEP", name, "this binary is older than the database"));
        }
    }
    if !table_exists(connection, RECORD).await? {
        findings.push(VerifyFinding::error("NO_SCHEMA", RECORD, "nothing was migrated here: run up"));
    }
    Ok(findings)
}

async fn sql_checks(connection: &DatabaseConnection) -> anyhow::Result<Vec<VerifyFinding>> {
    let mut tables = objects::tables();
    tables.extend([RECORD, LOCKS]);
    let builtin = auth_is_ours(connection).await?;
    let mut findings = Vec::new();
    for (title, query) in replaceable::sections(CHECKS) {
        let query = query
            .replace("{tables}", &name_array(&tables))
            .replace("{views}", &name_array(&objects::views()))
            .replace("{functions}", &name_array(&objects::functions()))
            .replace("{roles}", &name_array(&rights::ROLES))
            .replace("{provider}", if builtin { "false" } else { "true" });
        let rows =
            query_all(connection, &query).await.with_context(|| format!("the check \"{title}\" could not be made"))?;
        for row in rows {
            findings.push(VerifyFinding {
                severity: if row.try_get_by_index::<String>(0)? == "error" {
                    FindingSeverity::Error
                } else {
                    FindingSeverity::Warning
                },
                finding: row.try_get_by_index(1)?,
                subject: row.try_get_by_index(2)?,
                detail: row.try_get_by_index(3)?,
            });
        }
    }
    Ok(findings)
}

async fn compare_rights(connection: &DatabaseConnection) -> anyhow::Result<Vec<VerifyFinding>> {
    let (found, meant) = rights::found_and_meant(connection).await?;
    let excess = found
        .difference(&meant)
        .map(|right| VerifyFinding::error("EXCESS_RIGHT", right.clone(), "beyond the list: run repair"));
    let missing = meant
        .difference(&found)
        .map(|right| VerifyFinding::error("MISSING_RIGHT", right.clone(), "on the list and not given: run repair"));
    Ok(excess.chain(missing).collect())
}

/// Compares the objects with those that the steps make. Objects that another check reported are not reported again.
async fn compare_objects(
    connection: &DatabaseConnection,
    known: &[VerifyFinding],
) -> anyhow::Result<Vec<VerifyFinding>> {
    let mut findings = Vec::new();
    for difference in reference::differences(connection).await? {
        if known
            .iter()
            .any(|other| other.subject == difference.subject && OBJECT_CHECKS.contains(&other.finding.as_str()))
        {
            continue;
        }
        let (word, severity) = match difference.state {
            SchemaState::Missing => ("MISSING", FindingSeverity::Error),
            SchemaState::Changed => ("CHANGED", FindingSeverity::Error),
            // What can change or expose rows is an error; a column or an index of another team is not.
            SchemaState::Foreign if ["TRIGGER", "RULE", "POLICY", "FUNCTION"].contains(&difference.kind.as_str()) => {
                ("FOREIGN", FindingSeverity::Error)
            }
            SchemaState::Foreign => ("FOREIGN", FindingSeverity::Warning),
        };
        findings.push(VerifyFinding {
            severity,
            finding: format!("{word}_{}", difference.kind),
            subject: difference.subject,
            detail: difference.detail,
        });
    }
    Ok(findings)
}
