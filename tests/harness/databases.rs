//! A database for one test.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use adapters::postgres::{PgStore, PoolSettings, PoolerMode};
use adapters::randomness::SystemRandomness;
use ports::randomness::Randomness as _;
use ports::store::Store;
use sea_orm::sqlx::postgres::{PgPoolOptions, PgRow};
use sea_orm::sqlx::{self, AssertSqlSafe, FromRow, PgPool, Postgres};

use crate::cluster::Cluster;

/// The limit of each pool of a test; it keeps many parallel tests below the cluster's connection limit.
const CONNECTIONS_MAX: u32 = 2;

/// A test's own database. It is dropped with this value, even with open connections. Create it in the test's own
/// runtime, because the pools use that runtime.
pub struct TestDatabase {
    cluster: &'static Cluster,
    name: String,
    owner: PgPool,
    store: OnceLock<Arc<PgStore>>,
}

/// The settings of a test's store at this URL.
pub fn pool_settings(url: String) -> PoolSettings {
    PoolSettings {
        url,
        max_connections: CONNECTIONS_MAX,
        acquire_timeout: Duration::from_secs(2),
        pooler: PoolerMode::None,
        statement_timeout_ms: 5_000,
        lock_timeout_ms: 2_000,
        idle_in_transaction_timeout_ms: 10_000,
        answers_ttl: Duration::from_hours(24),
        answer_secret: b"the secret of the answers in tests".to_vec(),
    }
}

impl TestDatabase {
    /// A database with schema and seeds, like a fresh installation.
    pub async fn new() -> Self {
        let cluster = Cluster::get().await;
        // FILE_COPY takes half the time of WAL_LOG where fsync is off: 25 ms and 45 ms for 10 MB.
        Self::make(cluster, &format!("TEMPLATE {} STRATEGY file_copy", cluster.template)).await
    }

    /// An empty database, for tests of the migration itself. The roles of the cluster exist.
    pub async fn empty() -> Self {
        Self::make(Cluster::get().await, "TEMPLATE template0 STRATEGY file_copy").await
    }

    async fn make(cluster: &'static Cluster, how: &str) -> Self {
        let name = format!("test_{}", SystemRandomness.new_id().simple());
        let made = cluster.order(format!("CREATE DATABASE {name} {how}")).await;
        made.unwrap_or_else(|error| panic!("CREATE DATABASE {name} {how}: {error}"));
        let owner = PgPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .connect_lazy(&cluster.owner_url(&name))
            .expect("the cluster was reached over this URL");
        Self { cluster, name, owner, store: OnceLock::new() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The URL of the superuser who owns everything; migrations run with it.
    pub fn owner_url(&self) -> String {
        self.cluster.owner_url(&self.name)
    }

    /// The URL of the restricted login of the service.
    pub fn service_url(&self) -> String {
        self.cluster.service_url(&self.name)
    }

    /// The settings of `pg_store`; a test changes them for another kind of store.
    pub fn pool_settings(&self) -> PoolSettings {
        pool_settings(self.service_url())
    }

    /// The real store over the service's login. Every call returns the same store.
    pub fn pg_store(&self) -> Arc<PgStore> {
        let open = || Arc::new(PgStore::connect(self.pool_settings()).expect("the settings of the store are sound"));
        Arc::clone(self.store.get_or_init(open))
    }

    pub fn store(&self) -> Arc<dyn Store> {
        self.pg_store()
    }

    /// The owner's pool, for statements with parameters.
    pub fn owner(&self) -> &PgPool {
        &self.owner
    }

    /// Runs statements as the owner, which bypasses every policy.
    pub async fn sql(&self, statements: &str) {
        let outcome = sqlx::raw_sql(AssertSqlSafe(statements)).execute(&self.owner).await;
        outcome.unwrap_or_else(|error| panic!("{statements}: {error}"));
    }

    /// Rejects new connections except the owner's, and terminates the existing connections of the service.
    ///
    /// The limit is set in its own transaction, before the first connection is terminated: within one transaction, a
    /// terminated client could reconnect before the commit. A later round terminates the connections that were being
    /// opened when the limit was set.
    pub async fn take_away(&self) {
        self.sql(&format!("ALTER DATABASE {} CONNECTION LIMIT 0", self.name)).await;
        let dismissal = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity \
                         WHERE datname = current_database() AND usename = 'app_user'";
        let mut quiet_rounds = 0;
        while quiet_rounds < 2 {
            let sent_away: i64 = self.query_scalar(dismissal).await;
            quiet_rounds = if sent_away == 0 { quiet_rounds + 1 } else { 0 };
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Undoes [`Self::take_away`].
    pub async fn give_back(&self) {
        self.sql(&format!("ALTER DATABASE {} CONNECTION LIMIT -1", self.name)).await;
    }

    /// The single value of a single row, as the owner.
    pub async fn query_scalar<T>(&self, query: &str) -> T
    where
        (T,): for<'r> FromRow<'r, PgRow>,
        T: Send + Unpin,
    {
        self.query_one::<(T,)>(query).await.0
    }

    /// One row as a tuple, as the owner.
    pub async fn query_one<T>(&self, query: &str) -> T
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let row = sqlx::query_as::<Postgres, T>(AssertSqlSafe(query)).fetch_one(&self.owner).await;
        row.unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// All rows as tuples, as the owner.
    pub async fn query_all<T>(&self, query: &str) -> Vec<T>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let rows = sqlx::query_as::<Postgres, T>(AssertSqlSafe(query)).fetch_all(&self.owner).await;
        rows.unwrap_or_else(|error| panic!("{query}: {error}"))
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        self.cluster.order_soon(format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
    }
}
