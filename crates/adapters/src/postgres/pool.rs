//! The connection pool, and the hooks that keep state from passing between uses of a connection.
//!
//! It connects lazily, so that the service starts while the database is down, and reconnects by itself. A connection
//! costs one more round trip after its use, off the request's path: a message that leaves no transaction open, whatever
//! happened to the BEGIN before (sqlx issue 4385).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use ports::store::StoreError;
use sea_orm::sqlx;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sea_orm::sqlx::{ConnectOptions, Connection, Executor, PgPool};

/// The pooler between the service and Postgres.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolerMode {
    /// None, or a session pooler, or `PgBouncer` >= 1.21 with `max_prepared_statements`.
    None,
    /// A transaction pooler without support for prepared statements: they stay unnamed.
    Transaction,
}

#[derive(Clone)]
pub struct PoolSettings {
    pub url: String,
    pub max_connections: u32,
    /// How long a request waits for a connection; at most 2 s.
    pub acquire_timeout: Duration,
    pub pooler: PoolerMode,
    pub statement_timeout_ms: u64,
    pub lock_timeout_ms: u64,
    pub idle_in_transaction_timeout_ms: u64,
    /// How long a response is kept for its idempotency key.
    pub answers_ttl: Duration,
    /// The server's part of the key that seals responses.
    pub answer_secret: Vec<u8>,
}

// The address contains a password, and the secret opens stored responses.
impl fmt::Debug for PoolSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PoolSettings")
            .field("max_connections", &self.max_connections)
            .field("acquire_timeout", &self.acquire_timeout)
            .field("pooler", &self.pooler)
            .field("statement_timeout_ms", &self.statement_timeout_ms)
            .field("lock_timeout_ms", &self.lock_timeout_ms)
            .field("idle_in_transaction_timeout_ms", &self.idle_in_transaction_timeout_ms)
            .field("answers_ttl", &self.answers_ttl)
            .finish_non_exhaustive()
    }
}

/// The pool's state for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolState {
    pub size: u32,
    pub idle: u32,
    pub max: u32,
}

/// A request that waits longer should fail and be retried.
pub(super) const ACQUIRE_TIMEOUT_MAX: Duration = Duration::from_secs(2);

/// The self-test needs two connections at once.
const CONNECTIONS_MIN: u32 = 2;

/// For two lanes of the group commit, reads for the cache, and a few batches that wait beside them.
const COUNTING_CONNECTIONS_MAX: u32 = 6;

/// A connection idle for this long is pinged before its use.
const TRUSTED_IDLE: Duration = Duration::from_secs(30);

/// How long the message after a use may take; a connection that does not answer is closed.
const CLEANING_TIMEOUT: Duration = Duration::from_secs(5);

/// The service has a fixed set of fewer statements; each is prepared once per connection.
const PREPARED_STATEMENTS_MAX: usize = 300;

/// How many of the allowed connections are reserved for counting. None behind a transaction pooler, and none where the
/// pool needs them all.
pub(super) fn counting_connections(settings: &PoolSettings) -> u32 {
    match settings.pooler {
        PoolerMode::None => {
            (settings.max_connections.saturating_sub(CONNECTIONS_MIN) / 2).min(COUNTING_CONNECTIONS_MAX)
        }
        PoolerMode::Transaction => 0,
    }
}

/// The options of every connection.
pub(super) fn connection_options(settings: &PoolSettings) -> Result<PgConnectOptions, StoreError> {
    let capacity = if settings.pooler == PoolerMode::None { PREPARED_STATEMENTS_MAX } else { 0 };
    let options = PgConnectOptions::from_str(&settings.url)
        .map_err(|_| StoreError::Unexpected("the address of the database is not understood".into()))?
        .application_name("product-base")
        // Stock PgBouncer refuses a connection that sends this start-up parameter (08P01).
        .extra_float_digits(None)
        .statement_cache_capacity(capacity)
        .disable_statement_logging();
    Ok(options)
}

/// Creates the pool without connecting. Must be called within the tokio runtime that will use it.
pub(super) fn open(settings: &PoolSettings, connection: PgConnectOptions) -> PgPool {
    let connections = settings.max_connections.max(CONNECTIONS_MIN) - counting_connections(settings);
    PgPoolOptions::new()
        .max_connections(connections)
        .min_connections(0)
        .acquire_timeout(settings.acquire_timeout.min(ACQUIRE_TIMEOUT_MAX))
        .test_before_acquire(false)
        .before_acquire(|connection, metadata| {
            Box::pin(async move {
                if metadata.idle_for >= TRUSTED_IDLE {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .after_release(|connection, _| Box::pin(leave_no_transaction(connection)))
        .connect_lazy_with(connection)
}

/// Ends any transaction on the connection, and closes the connection if that is uncertain.
///
/// `BEGIN; ROLLBACK` avoids the warning that a bare ROLLBACK writes into the server's log each time. Only a transaction
/// that has already failed refuses the BEGIN; then the bare ROLLBACK is right.
async fn leave_no_transaction(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let cleaning = async {
        match connection.execute("BEGIN; ROLLBACK").await {
            Ok(_) => Ok(true),
            Err(sqlx::Error::Database(_)) => connection.execute("ROLLBACK").await.map(|_| true),
            Err(error) => Err(error),
        }
    };
    tokio::time::timeout(CLEANING_TIMEOUT, cleaning).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_do_not_show_their_secrets() {
        let settings = PoolSettings {
            url: "postgres://app_user:hunter2@localhost/db".into(),
            max_connections: 4,
            acquire_timeout: Duration::from_secs(1),
            pooler: PoolerMode::None,
            statement_timeout_ms: 1,
            lock_timeout_ms: 1,
            idle_in_transaction_timeout_ms: 1,
            answers_ttl: Duration::from_secs(1),
            answer_secret: b"s3cret".to_vec(),
        };
        let shown = format!("{settings:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("115") && !shown.contains("answer_secret"), "{shown}");
    }
}
