//! Pinned connections: a few connections apart from the pool, for counting (`Scope::Counting` and `Scope::Reading`).
//!
//! Counting runs one transaction after the other, so what a pool does around each of them (setting role and limits,
//! cleaning the connection, switching backends) costs more than the counting. Here the role, the limits and the planner
//! settings belong to the session from its startup packet on; the backend that served last serves next, with warm
//! caches; and BEGIN and COMMIT travel in one message with the first and the last statement.
//!
//! Promises: no statement runs here under the login's own role, since the role of each session is checked before its
//! first use. A connection in any doubt is closed: it is reused only after an answered COMMIT or ROLLBACK. A connection
//! that died while idle is replaced, since nothing was done on it. Where sessions cannot be kept (a transaction pooler
//! refuses such a startup packet), and where no connection is free, the pool is used.
//!
//! Costs: one message per statement, and one for COMMIT where no statement was held back for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::TryStreamExt;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgConnection};
use sea_orm::sqlx::{self, AssertSqlSafe, Connection, Executor};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tracing::info;

use super::begin_message::{self, Milliseconds};
use super::error::is_unavailable;
use super::pipelined_statements::{Message, Prepared, Reply};

/// A connection is closed after this time, with the memory that its backend has accumulated.
const LIFE: Duration = Duration::from_mins(30);

/// A connection idle for this long is pinged before its use.
const TRUSTED_REST: Duration = Duration::from_secs(30);

/// Time limits of a rollback and of a ping.
const CLEANING_TIMEOUT: Duration = Duration::from_secs(5);
const LIFE_SIGN_TIMEOUT: Duration = Duration::from_millis(500);

/// Pause between two attempts to connect while the database comes back.
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

pub(super) struct PinnedConnections {
    options: PgConnectOptions,
    /// The connection used last is at the end.
    resting: Mutex<Vec<Session>>,
    places: Arc<Semaphore>,
    places_max: usize,
    open: AtomicUsize,
    /// Set where a pooler before Postgres does not keep sessions.
    unfit: AtomicBool,
}

/// A connection with its prepared statements, by the statement's text.
struct Session {
    connection: PgConnection,
    prepared: HashMap<String, usize>,
    born: Instant,
    rests_since: Instant,
    /// Counts the connection as open while it exists.
    _counted: Counted,
}

struct Counted(Arc<PinnedConnections>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl PinnedConnections {
    pub(super) fn new(options: &PgConnectOptions, limits: Milliseconds, places_max: usize) -> Arc<Self> {
        Arc::new(Self {
            options: options.clone().options(begin_message::session(limits)),
            resting: Mutex::new(Vec::new()),
            places: Arc::new(Semaphore::new(places_max)),
            places_max,
            open: AtomicUsize::new(0),
            unfit: AtomicBool::new(false),
        })
    }

    /// A connection, or `None` where the pool must be used. It sends nothing to the database if a connection was used
    /// recently.
    pub(super) async fn lend(self: &Arc<Self>, in_transaction: bool) -> Option<PinnedConnection> {
        if self.unfit.load(Ordering::Relaxed) {
            return None;
        }
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let rested = self.rested().await;
        let is_new = rested.is_none();
        let session = match rested {
            Some(session) => session,
            None => match self.connect().await {
                Ok(Some(session)) => session,
                // The pool waits for a database that is coming back.
                Ok(None) | Err(_) => return None,
            },
        };
        let state = State { session, _place: place, is_new, begun: false, in_flight: false };
        Some(PinnedConnection { home: Arc::clone(self), state: Some(state), held_back: Vec::new(), in_transaction })
    }

    /// The numbers of open, of idle and of allowed connections.
    pub(super) fn state(&self) -> (usize, usize, usize) {
        (self.open.load(Ordering::Relaxed), self.at_rest().len(), self.places_max)
    }

    /// Closes the idle connections now and those in use after their transaction. No connection is given out afterwards.
    pub(super) async fn close(&self) {
        self.places.close();
        let resting = std::mem::take(&mut *self.at_rest());
        for session in resting {
            // A connection that cannot close in order is dead already.
            timeout(LIFE_SIGN_TIMEOUT, session.connection.close()).await.ok();
        }
    }

    fn at_rest(&self) -> MutexGuard<'_, Vec<Session>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn rested(&self) -> Option<Session> {
        loop {
            let mut session = self.at_rest().pop()?;
            if session.born.elapsed() >= LIFE {
                continue;
            }
            if session.rests_since.elapsed() < TRUSTED_REST {
                return Some(session);
            }
            if let Ok(Ok(())) = timeout(LIFE_SIGN_TIMEOUT, session.connection.ping()).await {
                return Some(session);
            }
        }
    }

    /// `None` where the session lacks the requested settings.
    async fn connect(self: &Arc<Self>) -> Result<Option<Session>, sqlx::Error> {
        let mut connection = match PgConnection::connect_with(&self.options).await {
            Ok(connection) => connection,
            // A protocol violation: a pooler's refusal of settings in the startup packet.
            Err(sqlx::Error::Database(refusal)) if refusal.code().as_deref() == Some("08P01") => {
                return Ok(self.give_up());
            }
            Err(error) => return Err(error),
        };
        let asked = sqlx::query_as(begin_message::COUNTING_CHECK).persistent(false);
        let answer: (String, String, String) = asked.fetch_one(&mut connection).await?;
        if answer.0 != begin_message::COUNTING_ROLE || answer.1 != begin_message::COUNTING_PLANS {
            return Ok(self.give_up());
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        let (now, counted) = (Instant::now(), Counted(Arc::clone(self)));
        let prepared = HashMap::new();
        Ok(Some(Session { connection, prepared, born: now, rests_since: now, _counted: counted }))
    }

    /// Retries while the database comes back. The caller bounds the time.
    async fn connect_patiently(self: &Arc<Self>) -> Result<Option<Session>, sqlx::Error> {
        loop {
            match self.connect().await {
                Err(error) if is_unavailable(&error) => tokio::time::sleep(BETWEEN_TRIES).await,
                outcome => return outcome,
            }
        }
    }

    fn give_up<T>(&self) -> Option<T> {
        self.unfit.store(true, Ordering::Relaxed);
        info!("no sessions can be kept on the way to the database: counting goes through the pool");
        None
    }

    fn take_back(&self, mut session: Session) {
        session.rests_since = Instant::now();
        if !self.places.is_closed() {
            self.at_rest().push(session);
        }
    }
}

struct State {
    session: Session,
    /// Its permit among the connections that may be in use.
    _place: OwnedSemaphorePermit,
    /// Just connected: it cannot have died while idle.
    is_new: bool,
    begun: bool,
    /// A message was sent, and its reply was not read to the end.
    in_flight: bool,
}

/// A connection for one transaction. `commit` returns it. Dropping it rolls back what was begun first, or closes it
/// where that is uncertain.
pub(super) struct PinnedConnection {
    home: Arc<PinnedConnections>,
    /// `None` once it is being returned.
    state: Option<State>,
    /// Statements that go with the next message.
    held_back: Vec<Prepared>,
    /// Whether the statements form one transaction; otherwise each is a transaction of its own.
    in_transaction: bool,
}

impl PinnedConnection {
    /// Sends the statement together with those held back.
    pub(super) async fn run(&mut self, statement: Prepared) -> Result<Reply, sqlx::Error> {
        self.held_back.push(statement);
        self.send("").await.map(|mut replies| replies.pop().unwrap_or_default())
    }

    /// Sends several statements in one message, with those held back. Returns a reply for each of the given ones.
    pub(super) async fn run_all(&mut self, statements: Vec<Prepared>) -> Result<Vec<Reply>, sqlx::Error> {
        let before = self.held_back.len();
        self.held_back.extend(statements);
        self.send("").await.map(|mut replies| replies.split_off(before.min(replies.len())))
    }

    /// Sends the statement with the next message, which reports its failure.
    pub(super) fn hold_back(&mut self, statement: Prepared) {
        self.held_back.push(statement);
    }

    /// The connection, for a statement with bound values: within the transaction, after the statements held back. It
    /// counts as doubtful until `answered`.
    pub(super) async fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        let begun = self.state()?.begun;
        if !self.held_back.is_empty() || (self.in_transaction && !begun) {
            self.send("").await?;
        }
        let state = self.state()?;
        state.in_flight = true;
        Ok(&mut state.session.connection)
    }

    /// Call it when a statement's reply was read to the end, good or bad; a broken connection has no reply.
    pub(super) fn answered<T>(&mut self, answer: &Result<T, sqlx::Error>) {
        if let Some(state) = &mut self.state {
            state.in_flight = !matches!(answer, Ok(_) | Err(sqlx::Error::Database(_)));
        }
    }

    /// Commits, together with the statements held back, and returns the connection. A refused commit is rolled back
    /// before the error is returned, so that a retry does not meet the locks of the first attempt.
    pub(super) async fn commit(mut self) -> Result<(), sqlx::Error> {
        let end = if self.in_transaction { "COMMIT" } else { ";" };
        let is_begun = self.state()?.begun;
        let answer = if is_begun || !self.held_back.is_empty() { self.send(end).await.map(drop) } else { Ok(()) };
        match (&answer, self.state.take()) {
            (Ok(()), Some(State { session, .. })) => self.home.take_back(session),
            (Err(sqlx::Error::Database(_)), Some(state)) => state.roll_back(&self.home).await,
            _ => {}
        }
        answer
    }

    fn state(&mut self) -> Result<&mut State, sqlx::Error> {
        self.state.as_mut().ok_or(sqlx::Error::PoolClosed)
    }

    async fn send(&mut self, end: &str) -> Result<Vec<Reply>, sqlx::Error> {
        let held_back = std::mem::take(&mut self.held_back);
        let in_transaction = self.in_transaction;
        let (home, state) = (Arc::clone(&self.home), self.state()?);
        let is_first = !in_transaction || !state.begun;
        let mut answer = state.send(&held_back, in_transaction, end).await;
        if is_first && !state.is_new && answer.as_ref().is_err_and(is_broken) && end.is_empty() {
            // It died while idle, as all do when the database restarts, and nothing was done on it.
            home.at_rest().clear();
            if let Some(session) = home.connect_patiently().await? {
                (state.session, state.is_new, state.begun) = (session, true, false);
                answer = state.send(&held_back, in_transaction, end).await;
            }
        }
        answer
    }
}

impl State {
    /// Drops a doubtful connection instead, which closes it.
    async fn roll_back(mut self, home: &PinnedConnections) {
        if self.in_flight {
            return;
        }
        let rollback = self.session.connection.execute("ROLLBACK");
        if let Ok(Ok(_)) = timeout(CLEANING_TIMEOUT, rollback).await {
            home.take_back(self.session);
        }
    }

    /// Returns a reply for each statement.
    async fn send(
        &mut self,
        statements: &[Prepared],
        in_transaction: bool,
        end: &str,
    ) -> Result<Vec<Reply>, sqlx::Error> {
        let begins = in_transaction && !self.begun;
        let Message { text, is_preparing, mut replies } =
            Message::of(statements, begins, end, &mut self.session.prepared);
        self.begun = in_transaction;
        self.in_flight = true;
        let mut stream = sqlx::raw_sql(AssertSqlSafe(text)).fetch_many(&mut self.session.connection);
        let answer = loop {
            match stream.try_next().await {
                Ok(Some(part)) => replies.add(part),
                Ok(None) => break Ok(replies.into_inner()),
                Err(error) => break Err(error),
            }
        };
        drop(stream);
        // After a failure it is unknown which statements were prepared. A broken connection has no reply.
        self.in_flight = match &answer {
            Ok(_) => false,
            Err(sqlx::Error::Database(_)) => is_preparing,
            Err(_) => true,
        };
        answer
    }
}

/// Whether the connection was lost before it could do anything.
fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(refusal) => refusal.code().is_some_and(|code| code.starts_with("57P")),
        _ => false,
    }
}

impl Drop for PinnedConnection {
    fn drop(&mut self) {
        let Some(state) = self.state.take() else { return };
        if !state.begun && !state.in_flight {
            self.home.take_back(state.session);
            return;
        }
        // Without a runtime the process is ending, and the connection closes with it.
        let Ok(runtime) = Handle::try_current() else { return };
        let home = Arc::clone(&self.home);
        runtime.spawn(async move {
            state.roll_back(&home).await;
        });
    }
}
