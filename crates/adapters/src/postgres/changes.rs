//! The feed of changes: one connection of its own that listens to what the triggers notify.
//!
//! Promises: a change is told within milliseconds of its commit. A round trip on this very connection, every 300 ms, is
//! what vouches for the silence between: the server sends what was notified before it answers. A connection that does not
//! answer within half a second is given up, and another one is tried for ever, after pauses of 0.1 to 2 s. Before a new
//! one vouches for anything, and as soon as one is lost, everything that was read before is said to be unknown.
//! Costs: a connection beside the pool, and three small round trips a second. It must not lead through a pooler in
//! transaction mode, which would hand the notifications to nobody.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::changes::Change;
use ports::changes::ChangeListener;
use ports::store::StoreError;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sea_orm::sqlx::{self, ConnectOptions, Executor, PgPool};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

/// Where `notify_change` sends to.
const CHANNEL: &str = "product_base_changes";

/// How long the connection may be silent before it is asked for a sign of life, and how long it may take to give one.
const SILENCE_MAX: Duration = Duration::from_millis(300);
const ANSWER_MAX: Duration = Duration::from_millis(500);

/// How long a new connection may take until it listens.
const CONNECT_MAX: Duration = Duration::from_secs(2);

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// It listens until it is dropped.
pub struct ChangeFeed(JoinHandle<()>);

impl ChangeFeed {
    /// Begins to listen at this address, and tells `listener`. The database may be away. Call it within the runtime.
    pub fn start(url: &str, listener: Arc<dyn ChangeListener>) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|_| StoreError::Unexpected("the direct address of the database is not understood".into()))?
            .application_name("product-base changes")
            .extra_float_digits(None)
            .statement_cache_capacity(0)
            .disable_statement_logging();
        Ok(Self(tokio::spawn(listen_for_ever(options, listener))))
    }
}

impl Drop for ChangeFeed {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn listen_for_ever(options: PgConnectOptions, listener: Arc<dyn ChangeListener>) {
    let mut pause = PAUSE_MIN;
    loop {
        match connect(&options).await {
            Ok(mut connection) => {
                pause = PAUSE_MIN;
                info!("changes are heard");
                let lost = hear(&mut connection, &*listener).await;
                listener.lost();
                warn!(%lost, "changes are not heard any more; what is remembered lives a second until they are");
            }
            Err(error) => {
                // At the first try only: while the database is away, others say so.
                if pause == PAUSE_MIN {
                    warn!(%error, "changes cannot be heard; what is remembered lives a second until they can");
                }
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// A connection that listens already. The pool is there for this one alone.
async fn connect(options: &PgConnectOptions) -> Result<PgListener, sqlx::Error> {
    let pool: PgPool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(CONNECT_MAX)
        .max_lifetime(None)
        .idle_timeout(None)
        .connect_lazy_with(options.clone());
    let connecting = async {
        let mut connection = PgListener::connect_with(&pool).await?;
        // A loss must be seen here, and not be mended behind our back.
        connection.eager_reconnect(false);
        connection.listen(CHANNEL).await?;
        Ok(connection)
    };
    timeout(CONNECT_MAX, connecting).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

/// Tells what comes until the connection is lost; says why it was.
async fn hear(connection: &mut PgListener, listener: &dyn ChangeListener) -> sqlx::Error {
    // What happened before the connection listened, nobody told: only what is read from now on can be vouched for.
    listener.lost();
    listener.vouch(Instant::now());
    loop {
        // A busy channel is asked too: that something comes does not say that everything came.
        let ask_at = tokio::time::Instant::now() + SILENCE_MAX;
        loop {
            match tokio::time::timeout_at(ask_at, connection.try_recv()).await {
                Ok(Ok(Some(told))) => listener.heard(Change::parse(told.payload())),
                Ok(Ok(None)) => return sqlx::Error::Io(std::io::ErrorKind::ConnectionAborted.into()),
                Ok(Err(error)) => return error,
                Err(_) => break,
            }
        }
        let asked_at = Instant::now();
        match timeout(ANSWER_MAX, connection.execute("SELECT 1")).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return error,
            Err(_) => return sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()),
        }
        // What came with the answer was notified before it.
        while let Some(told) = connection.next_buffered() {
            listener.heard(Change::parse(told.payload()));
        }
        listener.vouch(asked_at);
    }
}
