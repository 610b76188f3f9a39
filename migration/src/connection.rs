//! The connection to the database.
//!
//! Promise: no error contains a password. It needs the direct URL: a run keeps a transaction open on its own connection
//! (`lock`), and session settings must stay in effect.

use std::time::Duration;

use anyhow::{Context, anyhow};
use sea_orm_migration::sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend, DbErr, QueryResult, RuntimeErr,
    Statement, sqlx,
};

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
    // sea-orm writes the whole URL into some of its errors, so the text is cleaned and the error chain is dropped.
    Database::connect(options).await.map_err(|error| {
        let shown = without_password(database_url);
        let cause = error.to_string().replace(database_url, &shown);
        if let Some(why) = tls_trouble(&cause) {
            return anyhow!("{shown} answers, and its TLS cannot be used: {why} ({cause})");
        }
        anyhow!(
            "no connection to {shown}: is Postgres running there, and is this the direct URL \
             (PB__DATABASE__DIRECT_URL) and not a pooler's? {cause}"
        )
    })
}

/// What is wrong with the server's TLS (its certificate, or TLS itself), if that is why the connection failed.
fn tls_trouble(cause: &str) -> Option<&'static str> {
    let has = |text: &str| cause.contains(text);
    if has("UnsupportedCertVersion") {
        return Some("its certificate is of X.509 version 1; make one of version 3");
    }
    if has("peer certificate") || has("InvalidCertificate") {
        return Some("its certificate is refused; look at its names, its dates and who signed it, or at `sslrootcert`");
    }
    let is_tls = has("TLS") || has("HandshakeFailure") || has("handshake") || has("received fatal alert");
    is_tls.then_some("no TLS session could be agreed on; look at `sslmode` and at the server's `ssl`")
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

/// Whether `auth.users` is the table of the first step. An identity provider's has no comment of ours.
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

/// Whether the same statement may succeed when repeated: a busy table, a deadlock, or another runner that created the
/// same role at the same time.
pub fn is_passing(error: &DbErr) -> bool {
    is_busy(error) || has_code(error, &["23505", "42710"])
}

/// Whether another transaction has locked or just changed what the statement needs.
pub fn is_busy(error: &DbErr) -> bool {
    let Some(answer) = answer_of(error) else { return false };
    match answer.code().as_deref() {
        Some("55P03" | "40P01" | "40001") => true,
        Some("XX000") => answer.message().contains("tuple concurrently"),
        _ => false,
    }
}

/// Whether Postgres refused with one of these codes.
pub fn has_code(error: &DbErr, codes: &[&str]) -> bool {
    let Some(answer) = answer_of(error) else { return false };
    answer.code().is_some_and(|code| codes.contains(&code.as_ref()))
}

fn answer_of(error: &DbErr) -> Option<&dyn sqlx::error::DatabaseError> {
    let (DbErr::Exec(RuntimeErr::SqlxError(cause)) | DbErr::Query(RuntimeErr::SqlxError(cause))) = error else {
        return None;
    };
    cause.as_database_error()
}

/// A SQL array literal of names.
pub fn name_array<S: AsRef<str>>(names: &[S]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("'{}'", name.as_ref().replace('\'', "''"))).collect();
    format!("ARRAY[{}]::text[]", quoted.join(", "))
}

/// The URL for an error message: with the host, without the password.
pub fn without_password(database_url: &str) -> String {
    let Some((scheme, rest)) = database_url.split_once("://") else {
        return "the given URL (it has no scheme: postgres://user@host:5432/database is expected)".to_owned();
    };
    // A password may contain an @ or a /: the last @ before the query is the separator.
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
    use super::{name_array, tls_trouble, without_password};

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

    #[test]
    fn a_certificate_is_told_as_what_it_is() {
        let v1 = "Connection Error: error communicating with database: invalid peer certificate: \
                  Other(OtherError(UnsupportedCertVersion))";
        assert!(tls_trouble(v1).unwrap().contains("version 1"));
        assert!(tls_trouble("invalid peer certificate: UnknownIssuer").unwrap().contains("refused"));
        assert!(tls_trouble("error occurred while attempting to establish a TLS connection").is_some());
        assert!(tls_trouble("error communicating with database: Connection refused (os error 111)").is_none());
    }
}
