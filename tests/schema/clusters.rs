//! A cluster for a single test, because roles belong to a whole cluster.

use adapters::postgres::embedded::{EmbeddedPostgres, EmbeddedSettings, place_for_ephemeral};
use harness::sqlx::{self, AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;

/// A running cluster; it stops and its files are removed when this is dropped.
pub struct PrivateCluster {
    postgres: EmbeddedPostgres,
    _folder: TempDir,
}

impl PrivateCluster {
    pub async fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("product-base-schema-").tempdir_in(place_for_ephemeral()).unwrap();
        let postgres = EmbeddedPostgres::start(&EmbeddedSettings::ephemeral(folder.path())).await;
        Self { postgres: postgres.expect("a cluster of our own"), _folder: folder }
    }

    /// The superuser's URL, with a database that is empty at first.
    pub fn owner_url(&self) -> &str {
        self.postgres.owner_url()
    }

    pub fn url_as(&self, role: &str, password: &str) -> String {
        self.postgres.url_as(role, password, self.postgres.database())
    }

    /// Creates another, empty database and returns its URL.
    pub async fn database(&self, name: &str) -> String {
        self.sql(&format!("CREATE DATABASE {name} TEMPLATE template0")).await;
        let (server, _) = self.owner_url().rsplit_once('/').unwrap();
        format!("{server}/{name}")
    }

    /// Runs statements as the superuser.
    pub async fn sql(&self, statements: &str) {
        run(self.owner_url(), statements).await.unwrap_or_else(|error| panic!("{statements}: {error}"));
    }

    pub async fn stop(self) {
        self.postgres.stop().await.unwrap();
    }
}

/// Runs statements on their own connection.
pub async fn run(url: &str, statements: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await?;
    connection.close().await
}

/// The SQLSTATE of refused statements, and the violated constraint, if there is one. Panics if they succeed.
pub async fn refusal(url: &str, statements: &str) -> (String, Option<String>) {
    let error = run(url, statements).await.expect_err(statements);
    let answer = error.as_database_error().unwrap_or_else(|| panic!("{statements}: {error}"));
    (answer.code().unwrap_or_default().into_owned(), answer.constraint().map(str::to_owned))
}
