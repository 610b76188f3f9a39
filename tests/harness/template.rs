//! The template: one database with schema and seeds, made once and cloned by every test of every process.
//!
//! Its name contains a digest of everything in `migration/`, so that a changed step, function or seed makes a new
//! template. A session lock in the maintenance database lets one process make it while the others wait.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use reqwest::Url;
use sea_orm::sqlx::{self, AssertSqlSafe, Connection as _, PgConnection};

use crate::cluster::url_of;

/// The login of the service (design: `schema.md`, roles); the migration makes it, without a password.
pub const SERVICE_LOGIN: &str = "app_user";

/// The advisory lock's number; any number that nothing else locks in this database.
const LOCK: i64 = 7_270_020;

/// The number of tries. Roles belong to the whole cluster, so a migration in another database may be writing them.
const TRIES: u32 = 20;
const TRY_PERIOD: Duration = Duration::from_millis(100);

/// Makes the template if it does not exist, sets the password of the service's login, and returns the template's name.
pub async fn ensure(maintenance: &Url, service_password: &str) -> anyhow::Result<String> {
    let name = format!("template_{:016x}", fingerprint(&migration_folder())?);
    let mut connection = PgConnection::connect(maintenance.as_str()).await.context("the cluster of the tests")?;
    sqlx::query("SELECT pg_advisory_lock($1)").bind(LOCK).execute(&mut connection).await?;
    let known: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(&name)
        .fetch_one(&mut connection)
        .await?;
    if !known {
        make(maintenance, &mut connection, &name).await?;
    }
    let password = service_password.replace('\'', "''");
    execute_patiently(&mut connection, &format!("ALTER ROLE {SERVICE_LOGIN} LOGIN PASSWORD '{password}'")).await?;
    connection.close().await?; // this also releases the lock
    Ok(name)
}

/// Makes it under a draft name and renames it when it is complete, so that an aborted run leaves no partial template.
async fn make(maintenance: &Url, connection: &mut PgConnection, name: &str) -> anyhow::Result<()> {
    let draft = format!("{name}_draft");
    let is_left_over: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(&draft)
        .fetch_one(&mut *connection)
        .await?;
    if is_left_over {
        execute(connection, &format!("ALTER DATABASE {draft} IS_TEMPLATE false")).await?;
        execute(connection, &format!("DROP DATABASE {draft} WITH (FORCE)")).await?;
    }
    execute(connection, &format!("CREATE DATABASE {draft} TEMPLATE template0")).await?;
    let url = url_of(maintenance, &draft);
    migration::up(url.as_str()).await.context("migration::up")?;
    migration::seed(url.as_str()).await.context("migration::seed")?;
    // Disallow connections and terminate the open ones: a template in use cannot be cloned.
    execute(connection, &format!("ALTER DATABASE {draft} ALLOW_CONNECTIONS false IS_TEMPLATE true")).await?;
    sqlx::query("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1")
        .bind(&draft)
        .execute(&mut *connection)
        .await?;
    execute(connection, &format!("ALTER DATABASE {draft} RENAME TO {name}")).await?;
    Ok(())
}

async fn execute(connection: &mut PgConnection, statement: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.map(drop)
}

/// Retries if another transaction wrote the same role (SQLSTATE XX000, "tuple concurrently updated").
async fn execute_patiently(connection: &mut PgConnection, statement: &str) -> Result<(), sqlx::Error> {
    for _ in 1..TRIES {
        match execute(connection, statement).await {
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("XX000") => {
                tokio::time::sleep(TRY_PERIOD).await;
            }
            outcome => return outcome,
        }
    }
    execute(connection, statement).await
}

fn migration_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../migration")
}

/// A digest of names and contents of all files below a folder.
fn fingerprint(folder: &Path) -> anyhow::Result<u64> {
    let mut waiting = vec![folder.to_owned()];
    let mut files = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).with_context(|| path.display().to_string())?;
            waiting.extend(entries.collect::<Result<Vec<_>, _>>()?.into_iter().map(|entry| entry.path()));
        } else {
            files.push(path);
        }
    }
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.strip_prefix(folder)?.hash(&mut hasher);
        fs::read(&file).with_context(|| file.display().to_string())?.hash(&mut hasher);
    }
    Ok(hasher.finish())
}
