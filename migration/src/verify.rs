//! What an operator wants to hear before trusting a database: is it whole, is it closed, are its rows consistent?
//!
//! Promise: nothing is changed. Rights are compared by giving them all once more in a transaction that is rolled
//! back, and objects with those that the steps make in another (`reference.rs`), so there is no second list of either.
//! Cost: the integrity checks read whole tables.

use std::fmt;

use anyhow::Context;
use sea_orm_migration::sea_orm::DatabaseConnection;

use crate::connection::{auth_is_ours, connect, name_array, query_all, table_exists};
use crate::lock::Lock;
use crate::objects::{self, LOCKS, RECORD};
use crate::reference::{self, State};
use crate::{record, replaceable, rights, steps};

const CHECKS: &str = include_str!("verify.sql");
/// Findings that say more of an object than that it was changed.
const OBJECT_CHECKS: [&str; 2] = ["DEFINER_SEARCH_PATH", "VIEW_AS_OWNER"];

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
        let objects = compare_objects(connection, &findings).await?;
        findings.extend(objects);
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
    let (found, meant) = rights::found_and_meant(connection).await?;
    let excess = found
        .difference(&meant)
        .map(|right| Finding::error("EXCESS_RIGHT", right.clone(), "beyond the list: run repair"));
    let missing = meant
        .difference(&found)
        .map(|right| Finding::error("MISSING_RIGHT", right.clone(), "on the list and not given: run repair"));
    Ok(excess.chain(missing).collect())
}

/// The objects themselves, held against those that the steps make. What another check has named is not named again.
async fn compare_objects(connection: &DatabaseConnection, known: &[Finding]) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for difference in reference::differences(connection).await? {
        if known
            .iter()
            .any(|other| other.subject == difference.subject && OBJECT_CHECKS.contains(&other.finding.as_str()))
        {
            continue;
        }
        let (word, severity) = match difference.state {
            State::Missing => ("MISSING", Severity::Error),
            State::Changed => ("CHANGED", Severity::Error),
            // What can change or show rows is an error; a column or an index of another team is not.
            State::Foreign if ["TRIGGER", "RULE", "POLICY", "FUNCTION"].contains(&difference.kind.as_str()) => {
                ("FOREIGN", Severity::Error)
            }
            State::Foreign => ("FOREIGN", Severity::Warning),
        };
        findings.push(Finding {
            severity,
            finding: format!("{word}_{}", difference.kind),
            subject: difference.subject,
            detail: difference.detail,
        });
    }
    Ok(findings)
}
