//! The way to the database: one connection to work on, and one that holds the lock.
//!
//! Promise: two runners on one database never work at the same time, and no error names a password.
//! Cost: one connection more for as long as a run lasts. Both need the direct URL: behind a transaction
//! pooler a session lock belongs to whichever client comes next.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use sea_orm_migration::sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend, DbErr, QueryResult, RuntimeErr,
    Statement, sqlx,
};

/// Any number serves, as long as every release uses the same one.
const LOCK_KEY: i64 = 0x7072_6f64_6261_7365;
const LOCK_TRIES: u32 = 1200;
const LOCK_PAUSE: Duration = Duration::from_millis(250);

pub async fn connect(database_url: &str) -> anyhow::Result<DatabaseConnection> {
    let mut options = ConnectOptions::new(database_url);
    options
        .max_connections(1)
        .connect_timeout(Duration::from_secs(10))
        .acquire_timeout(Duration::from_secs(10))
        .idle_timeout(None::<Duration>)
        .max_lifetime(None::<Duration>)
        .sqlx_logging(false)
        .set_application_name("product-base-migration")
        .set_schema_search_path("public");
    // sea-orm writes the whole URL into some of its errors, so its text is cleaned and its chain is not kept.
    Database::connect(options).await.map_err(|error| {
        let shown = without_password(database_url);
        let cause = error.to_string().replace(database_url, &shown);
        anyhow!(
            "no connection to {shown}: is Postgres running there, and is this the direct URL \
             (PB__DATABASE__DIRECT_URL) and not a pooler's? {cause}"
        )
    })
}

/// Holds the lock until it is closed, or until its connection ends with the process.
pub struct Lock(DatabaseConnection);

impl Lock {
    pub async fn acquire(database_url: &str) -> anyhow::Result<Self> {
        let connection = connect(database_url).await?;
        for attempt in 0..LOCK_TRIES {
            let row = query_one(&connection, &format!("SELECT pg_try_advisory_lock({LOCK_KEY}) AS held")).await?;
            if row.try_get::<bool>("", "held")? {
                return Ok(Self(connection));
            }
            if attempt == 0 {
                tracing::info!("another migration runs on this database: waiting for it");
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
        bail!("another migration has held its lock for five minutes: see pg_locks where locktype = 'advisory'")
    }

    /// It has nothing else to do while the lock is held.
    pub const fn connection(&self) -> &DatabaseConnection {
        &self.0
    }

    pub async fn release(self) -> anyhow::Result<()> {
        self.0.close().await.context("the connection of the lock did not close")
    }
}

pub async fn query_one<C: ConnectionTrait>(connection: &C, sql: &str) -> anyhow::Result<QueryResult> {
    connection
        .query_one_raw(Statement::from_string(DbBackend::Postgres, sql))
        .await?
        .context("the database answered no row where one always is")
}

pub async fn query_all<C: ConnectionTrait>(connection: &C, sql: &str) -> anyhow::Result<Vec<QueryResult>> {
    Ok(connection.query_all_raw(Statement::from_string(DbBackend::Postgres, sql)).await?)
}

/// Whether `auth.users` is the minimum that the first step makes. An identity provider's carries no comment of ours.
pub async fn auth_is_ours<C: ConnectionTrait>(connection: &C) -> anyhow::Result<bool> {
    let row = query_one(
        connection,
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = 'auth' AND c.relname = 'users' \
         AND pg_catalog.obj_description(c.oid, 'pg_class') LIKE 'product-base%') AS ours",
    )
    .await?;
    Ok(row.try_get("", "ours")?)
}

pub async fn table_exists<C: ConnectionTrait>(connection: &C, table: &str) -> anyhow::Result<bool> {
    let sql = format!("SELECT pg_catalog.to_regclass('public.{table}') IS NOT NULL AS present");
    Ok(query_one(connection, &sql).await?.try_get("", "present")?)
}

/// Whether the same statement may succeed when it is sent again: a busy table, a deadlock, or another runner
/// that made the same role in the same moment.
pub fn is_passing(error: &DbErr) -> bool {
    is_busy(error) || matches!(state(error).as_deref(), Some("23505" | "42710"))
}

/// Whether somebody else has locked or just changed what the statement needs.
pub fn is_busy(error: &DbErr) -> bool {
    match state(error).as_deref() {
        Some("55P03" | "40P01" | "40001") => true,
        Some("XX000") => error.to_string().contains("tuple concurrently"),
        _ => false,
    }
}

fn state(error: &DbErr) -> Option<String> {
    let (DbErr::Exec(RuntimeErr::SqlxError(cause)) | DbErr::Query(RuntimeErr::SqlxError(cause))) = error else {
        return None;
    };
    let sqlx::Error::Database(answer) = &**cause else {
        return None;
    };
    answer.code().map(std::borrow::Cow::into_owned)
}

/// A SQL literal of a list of names.
pub fn name_array<S: AsRef<str>>(names: &[S]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("'{}'", name.as_ref().replace('\'', "''"))).collect();
    format!("ARRAY[{}]::text[]", quoted.join(", "))
}

/// The URL for an error message: whoever reads it needs the host, and must not see the secret.
pub fn without_password(database_url: &str) -> String {
    let Some((scheme, rest)) = database_url.split_once("://") else {
        return "the given URL (it has no scheme: postgres://user@host:5432/database is expected)".to_owned();
    };
    // A password may itself hold an @ or a /: what counts is the last @ before the query.
    let rest = rest.split_once('?').map_or(rest, |(before_query, _)| before_query);
    match rest.rsplit_once('@') {
        Some((credentials, place)) => {
            let user = credentials.split_once(':').map_or(credentials, |(user, _)| user);
            format!("{scheme}://{user}@{place}")
        }
        None => format!("{scheme}://{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{name_array, without_password};

    #[test]
    fn an_error_message_keeps_the_host_and_loses_the_password() {
        let cases = [
            ("postgres://me:s3cret@db.example:5432/app", "postgres://me@db.example:5432/app"),
            ("postgres://me:s3:c@r/et@db.example/app?sslmode=require", "postgres://me@db.example/app"),
            ("postgres://db.example/app?password=s3cret", "postgres://db.example/app"),
            ("postgres://me@db.example/app", "postgres://me@db.example/app"),
        ];
        for (url, shown) in cases {
            assert_eq!(without_password(url), shown);
        }
        assert!(!without_password("me:s3cret@db").contains("s3cret"));
    }

    #[test]
    fn names_become_one_literal() {
        assert_eq!(name_array(&["plans", "o'brien"]), "ARRAY['plans', 'o''brien']::text[]");
    }
}
