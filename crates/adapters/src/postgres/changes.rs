//! The change feed: a connection of its own that listens to the notifications of the triggers.
//!
//! Promises: a change is reported within milliseconds of its commit. A round trip on the same connection every 300 ms
//! confirms that no change is missing: the server sends earlier notifications before its answer. A connection that does
//! not answer within half a second is dropped, and another one is tried, without end, after pauses of 0.1 to 2 s. When
//! a connection is lost, and before a new one confirms anything, everything read before is invalidated.
//! Costs: a connection beside the pool, and three small round trips a second. It must not lead through a pooler in
//! transaction mode, which would drop the notifications.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use domain::changes::Change;
use ports::changes::ChangeListener;
use ports::clock::Clock;
use ports::store::StoreError;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sea_orm::sqlx::{self, ConnectOptions, Executor, PgPool};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

/// The channel of `notify_change`.
const CHANNEL: &str = "product_base_changes";

/// How long the connection may be silent before it is probed, and how long the probe may take.
const SILENCE_MAX: Duration = Duration::from_millis(300);
const ANSWER_MAX: Duration = Duration::from_millis(500);

/// How long connecting and listening may take.
const CONNECT_MAX: Duration = Duration::from_secs(2);

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Listens until it is dropped.
pub struct ChangeFeed(JoinHandle<()>);

impl ChangeFeed {
    /// Starts to listen at this address and reports to `listener`. The database may be down. Call it within the
    /// runtime.
    pub fn start(url: &str, listener: Arc<dyn ChangeListener>, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|_| StoreError::Unexpected("the direct address of the database is not understood".into()))?
            .application_name("product-base changes")
            .extra_float_digits(None)
            .statement_cache_capacity(0)
            .disable_statement_logging();
        Ok(Self(tokio::spawn(listen_for_ever(options, listener, clock))))
    }
}

impl Drop for ChangeFeed {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn listen_for_ever(options: PgConnectOptions, listener: Arc<dyn ChangeListener>, clock: Arc<dyn Clock>) {
    let mut pause = PAUSE_MIN;
    loop {
        match connect(&options).await {
            Ok(mut connection) => {
                pause = PAUSE_MIN;
                info!("changes are heard");
                let lost = hear(&mut connection, &*listener, &*clock).await;
                listener.invalidate_all();
                warn!(%lost, "changes are not heard any more; what is remembered lives a second until they are");
            }
            Err(error) => {
                // Only at the first attempt: while the database is down, other parts log it.
                if pause == PAUSE_MIN {
                    warn!(%error, "changes cannot be heard; what is remembered lives a second until they can");
                }
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// A connection that already listens. The pool exists for this connection only.
async fn connect(options: &PgConnectOptions) -> Result<PgListener, sqlx::Error> {
    let pool: PgPool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(CONNECT_MAX)
        .max_lifetime(None)
        .idle_timeout(None)
        .connect_lazy_with(options.clone());
    let connecting = async {
        let mut connection = PgListener::connect_with(&pool).await?;
        // A lost connection must be seen here, and not be replaced silently.
        connection.eager_reconnect(false);
        connection.listen(CHANNEL).await?;
        Ok(connection)
    };
    timeout(CONNECT_MAX, connecting).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

/// Reports changes until the connection is lost; returns the reason.
async fn hear(connection: &mut PgListener, listener: &dyn ChangeListener, clock: &dyn Clock) -> sqlx::Error {
    // Changes before the connection listened were not reported: only data read from now on can be confirmed.
    listener.invalidate_all();
    listener.confirm_fresh(clock.elapsed());
    loop {
        // A busy channel is probed too: notifications that arrive do not prove that all arrived.
        let ask_at = tokio::time::Instant::now() + SILENCE_MAX;
        loop {
            match tokio::time::timeout_at(ask_at, connection.try_recv()).await {
                Ok(Ok(Some(told))) => listener.invalidate(Change::parse(told.payload())),
                Ok(Ok(None)) => return sqlx::Error::Io(std::io::ErrorKind::ConnectionAborted.into()),
                Ok(Err(error)) => return error,
                Err(_) => break,
            }
        }
        let asked_at = clock.elapsed();
        match timeout(ANSWER_MAX, connection.execute("SELECT 1")).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return error,
            Err(_) => return sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()),
        }
        // Notifications that came with the answer were sent before it.
        while let Some(told) = connection.next_buffered() {
            listener.invalidate(Change::parse(told.payload()));
        }
        listener.confirm_fresh(asked_at);
    }
}
