//! The schema that the steps and texts of this binary make, for comparison with a database.
//!
//! Promise: a change of the database cannot change the reference, and there is no list beside the steps: they run again
//! in a separate schema, on the same server, in a transaction that is rolled back. So the same version of Postgres
//! prints both sides. No table of the product is locked. The reference has the same months as the database. Cost: about
//! a second, and the right to create a schema in the database.

use std::collections::BTreeMap;

use anyhow::Context;
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseConnection, TransactionTrait};

use crate::connection::{auth_is_ours, name_array, query_all};
use crate::objects::{self, LOCKS, RECORD};
use crate::{lock, record, replaceable, steps};

const FACTS: &str = include_str!("reference.sql");
const SCHEMA: &str = "product_base_reference";
const AUTH: &str = "product_base_reference_auth";

/// A difference, and the statements that repair it, each for its own transaction. Empty if a text that is applied again
/// repairs it, or if it cannot be repaired.
#[derive(Debug)]
pub struct SchemaDifference {
    pub kind: String,
    pub subject: String,
    pub state: SchemaState,
    pub detail: String,
    pub cure: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaState {
    Missing,
    Changed,
    /// It exists, and the steps do not make it.
    Foreign,
}

#[derive(Clone)]
struct Fact {
    value: String,
    make: Option<String>,
}

/// Kinds in the order in which they are restored.
type Facts = Vec<(String, BTreeMap<String, Fact>, Vec<String>)>;

pub async fn differences(connection: &DatabaseConnection) -> anyhow::Result<Vec<SchemaDifference>> {
    let builtin = auth_is_ours(connection).await?;
    let transaction = connection.begin().await?;
    let outcome = compared(&transaction, builtin).await;
    transaction.rollback().await?;
    outcome
}

async fn compared<C: ConnectionTrait>(connection: &C, builtin: bool) -> anyhow::Result<Vec<SchemaDifference>> {
    build(connection, builtin).await.context(
        "the schema could not be made once more to compare with: verify needs the login that migrates, with CREATE on the database",
    )?;
    connection.execute_unprepared("SET LOCAL search_path = ''").await?;
    let meant = facts(connection, SCHEMA, AUTH, builtin).await?;
    let found = facts(connection, "public", "auth", builtin).await?;
    let mut differences = Vec::new();
    for ((kind, meant, order), (_, found, _)) in meant.iter().zip(&found) {
        for subject in order {
            let Some(fact) = meant.get(subject) else { continue };
            match found.get(subject) {
                None => differences.push(SchemaDifference {
                    kind: kind.clone(),
                    subject: subject.clone(),
                    state: SchemaState::Missing,
                    detail: format!("it is not there; the steps make {}", part_of(&fact.value, 0)),
                    cure: cure(kind, fact, false),
                }),
                Some(other) if other.value != fact.value => differences.push(SchemaDifference {
                    kind: kind.clone(),
                    subject: subject.clone(),
                    state: SchemaState::Changed,
                    detail: told(&other.value, &fact.value),
                    cure: cure(kind, fact, true),
                }),
                Some(_) => {}
            }
        }
        for (subject, fact) in found.iter().filter(|(subject, _)| !meant.contains_key(*subject)) {
            differences.push(SchemaDifference {
                kind: kind.clone(),
                subject: subject.clone(),
                state: SchemaState::Foreign,
                detail: format!("the steps make none such: {}", part_of(&fact.value, 0)),
                cure: Vec::new(),
            });
        }
    }
    Ok(differences)
}

/// Runs the steps and the texts again, with another schema's name in them.
async fn build<C: ConnectionTrait>(connection: &C, builtin: bool) -> anyhow::Result<()> {
    let months = query_all(
        connection,
        "SELECT p.relname::text AS parent, right(c.relname, 7) AS month FROM pg_catalog.pg_inherits i \
         JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid JOIN pg_catalog.pg_class p ON p.oid = i.inhparent \
         WHERE p.relnamespace = 'public'::regnamespace AND p.relname IN ('usage_events', 'ai_usage_logs') AND c.relname ~ '_\\d{4}_\\d{2}$'",
    )
    .await?;
    let head = format!(
        "SET LOCAL lock_timeout = '5s'; SET LOCAL client_min_messages = 'error'; CREATE SCHEMA {SCHEMA}; \
         CREATE TABLE {SCHEMA}.auth_users (id uuid PRIMARY KEY); SET LOCAL search_path = '{SCHEMA}'"
    );
    connection.execute_unprepared(&head).await?;
    let mut texts = vec![("the locks", lock::MAKE.to_owned()), ("the record", record::create())];
    texts.extend(steps::STEPS.iter().map(|step| (step.name, step.up.replace(" CONCURRENTLY ", " "))));
    for (name, sql) in texts {
        connection.execute_unprepared(&elsewhere(&sql, builtin)).await.context(name)?;
    }
    for part in replaceable::parts(builtin) {
        if part.name != "schema_rights" && !part.name.starts_with("grants/") {
            connection.execute_unprepared(&elsewhere(&part.sql, builtin)).await.context(part.name)?;
        }
    }
    for row in months {
        let (parent, month): (String, String) = (row.try_get("", "parent")?, row.try_get("", "month")?);
        let missing = format!(
            "DO $month$ BEGIN IF to_regclass('{SCHEMA}.{parent}_{month}') IS NULL THEN \
             PERFORM {SCHEMA}.make_partition('{parent}', to_date('{month}', 'YYYY_MM')::timestamp); END IF; END $month$"
        );
        connection.execute_unprepared(&missing).await.context("a month")?;
    }
    Ok(())
}

/// The text with other schema names. A built-in `auth` is renamed too. Of a provider's `auth`, only the foreign key is
/// redirected, since a key to the real table would lock it.
fn elsewhere(sql: &str, builtin: bool) -> String {
    let sql = with_word(sql, "public", SCHEMA);
    if builtin {
        with_word(&sql, "auth", AUTH)
    } else {
        sql.replace("REFERENCES auth.users ", &format!("REFERENCES {SCHEMA}.auth_users "))
    }
}

fn back(text: &str) -> String {
    text.replace(&format!("{SCHEMA}.auth_users"), "auth.users").replace(AUTH, "auth").replace(SCHEMA, "public")
}

fn with_word(text: &str, word: &str, other: &str) -> String {
    let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut written = String::with_capacity(text.len() * 2);
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let (before, from) = rest.split_at(at);
        let (found, after) = from.split_at(word.len());
        let is_whole =
            !written_tail(&written, before).is_some_and(is_inside) && !after.chars().next().is_some_and(is_inside);
        written.push_str(before);
        written.push_str(if is_whole { other } else { found });
        rest = after;
    }
    written + rest
}

fn written_tail(written: &str, before: &str) -> Option<char> {
    before.chars().next_back().or_else(|| written.chars().next_back())
}

async fn facts<C: ConnectionTrait>(connection: &C, schema: &str, auth: &str, builtin: bool) -> anyhow::Result<Facts> {
    let mut tables = objects::tables();
    tables.extend([RECORD, LOCKS]);
    let tables = name_array(&tables);
    let relations = format!(
        "(SELECT c.*, n.nspname::text AS schema, n.nspname || '.' || c.relname AS name, p.relname AS parent FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid LEFT JOIN pg_catalog.pg_class p ON p.oid = i.inhparent \
         WHERE c.relkind IN ('r', 'p') AND ((n.nspname = '{schema}' AND coalesce(p.relname, c.relname) = ANY ({tables})) \
           OR ({builtin} AND n.nspname = '{auth}' AND c.relname = 'users')))"
    );
    let owner =
        format!("(SELECT x.relowner FROM pg_catalog.pg_class x WHERE x.oid = '{schema}.{LOCKS}'::pg_catalog.regclass)");
    let mut facts = Vec::new();
    for (kind, query) in replaceable::sections(FACTS) {
        let query = query
            .replace("{relations}", &relations)
            .replace("{owner}", &owner)
            .replace("{schema}", schema)
            .replace("{auth}", auth)
            .replace("{builtin}", if builtin { "true" } else { "false" })
            .replace("{functions}", &name_array(&objects::functions()))
            .replace("{views}", &name_array(&objects::views()));
        let rows = query_all(connection, &query).await.with_context(|| format!("facts of the kind {kind}"))?;
        let mut known = BTreeMap::new();
        let mut order = Vec::new();
        for row in rows {
            let subject = back(&row.try_get::<String>("", "subject")?);
            let subject = subject.strip_prefix("public.").unwrap_or(&subject).to_owned();
            let fact = Fact {
                value: back(&row.try_get::<String>("", "value")?),
                make: row.try_get::<Option<String>>("", "make")?.map(|text| back(&text)),
            };
            order.push(subject.clone());
            known.insert(subject, fact);
        }
        facts.push((kind.to_owned(), known, order));
    }
    Ok(facts)
}

fn cure(kind: &str, fact: &Fact, is_there: bool) -> Vec<String> {
    let Some(make) = &fact.make else { return Vec::new() };
    match kind {
        "CONSTRAINT" => {
            let Some((head, definition)) = make.split_once(" ADD CONSTRAINT ") else { return Vec::new() };
            let name = definition.split(' ').next().unwrap_or_default();
            let drop = if is_there { format!("{head} DROP CONSTRAINT {name}; ") } else { String::new() };
            if !definition.contains(" CHECK ") && !definition.contains(" FOREIGN KEY ") {
                return vec![format!("{drop}{make}")];
            }
            // Rows are read in a second transaction, under a lock that lets others write.
            vec![format!("{drop}{make} NOT VALID"), format!("{head} VALIDATE CONSTRAINT {name}")]
        }
        "INDEX" if is_there => {
            let name = objects::created(make, "INDEX ", " ON ").first().copied().unwrap_or_default();
            vec![format!("DROP INDEX IF EXISTS public.{name}; {make}")]
        }
        // A lost column or table took its rows with it.
        "COLUMN" | "TABLE" | "SEQUENCE" | "TRIGGER" | "FUNCTION" | "VIEW" if !is_there => Vec::new(),
        _ => vec![make.clone()],
    }
}

/// Both values, from shortly before their first difference.
fn told(found: &str, meant: &str) -> String {
    let same = found.chars().zip(meant.chars()).take_while(|(one, other)| one == other).count();
    let from = same.saturating_sub(30);
    format!("it says {}; the steps make {}", part_of(found, from), part_of(meant, from))
}

fn part_of(value: &str, from: usize) -> String {
    let part: String = value.chars().skip(from).take(160).collect();
    format!("\"{}\"", part.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::{back, elsewhere, told};

    #[test]
    fn a_text_comes_back_as_it_was() {
        let sql = "CREATE TABLE public.a (id uuid REFERENCES auth.users (id)); -- PUBLIC, authenticated, republic, public_x, 'public'";
        for builtin in [true, false] {
            let other = elsewhere(sql, builtin);
            assert!(!other.contains("public.a") && other.contains("republic, public_x"), "{other}");
            assert!(other.contains("authenticated") && !other.contains("REFERENCES auth."), "{other}");
            assert_eq!(back(&other), sql);
        }
    }

    #[test]
    fn a_difference_is_told_from_where_it_begins() {
        let long = "x".repeat(500);
        let detail = told(&format!("{long} one"), &format!("{long} other"));
        assert!(detail.contains("one") && detail.contains("other") && detail.len() < 120, "{detail}");
    }
}
