//! The connections that count: a few that are kept apart from the pool, for `Scope::Counting` alone.
//!
//! Counting takes one transaction after the other, so what a pool does around each of them (role and limits anew, a clean
//! connection afterwards, another backend in turn) costs more than the counting. Here the role, the limits and the
//! settings of the planner are the session's, from its first packet on; the backend that served last serves next, with
//! its caches warm; and BEGIN and COMMIT travel in one message with the first and the last statement.
//!
//! Promises: no statement runs here under the login's own role, since each session is asked for its role before it
//! serves. A connection that is in any doubt is closed: only an answered COMMIT or ROLLBACK brings it back. One that died
//! at rest is replaced, since nothing was done on it. Where sessions cannot be kept (a transaction pooler refuses such a
//! first packet), and where none is free, the pool serves as it serves everybody.
//!
//! Costs: as many messages as statements, and one for COMMIT where nothing was held back for it.

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

use super::error::is_unavailable;
use super::messages::{Message, Prepared, Reply};
use super::opening::{self, Milliseconds};

/// A connection is given up after so long, with the memory that its backend has gathered.
const LIFE: Duration = Duration::from_mins(30);

/// One that rested for so long is asked for a sign of life first.
const TRUSTED_REST: Duration = Duration::from_secs(30);

/// How long a sign of life may take, and a rollback.
const CLEANING_TIMEOUT: Duration = Duration::from_secs(5);
const LIFE_SIGN_TIMEOUT: Duration = Duration::from_millis(500);

/// Between two tries to connect, while the database is on its way back.
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

pub(super) struct CountingConnections {
    options: PgConnectOptions,
    /// The one that served last is the last.
    resting: Mutex<Vec<Session>>,
    places: Arc<Semaphore>,
    places_max: usize,
    open: AtomicUsize,
    /// Something between the service and Postgres keeps no sessions.
    unfit: AtomicBool,
}

/// A connection with what was prepared on it, by the statement's text.
struct Session {
    connection: PgConnection,
    prepared: HashMap<String, usize>,
    born: Instant,
    rests_since: Instant,
    /// Counts it as open for as long as it lives.
    _counted: Counted,
}

struct Counted(Arc<CountingConnections>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl CountingConnections {
    pub(super) fn new(options: &PgConnectOptions, limits: Milliseconds, places_max: usize) -> Arc<Self> {
        Arc::new(Self {
            options: options.clone().options(opening::session(limits)),
            resting: Mutex::new(Vec::new()),
            places: Arc::new(Semaphore::new(places_max)),
            places_max,
            open: AtomicUsize::new(0),
            unfit: AtomicBool::new(false),
        })
    }

    /// A connection that waits for its first statement, or `None` where the pool has to serve: nothing is asked of the
    /// database unless there is no connection at rest.
    pub(super) async fn lend(self: &Arc<Self>, in_transaction: bool) -> Option<Lent> {
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
                // The pool has the patience to wait for a database that is on its way back.
                Ok(None) | Err(_) => return None,
            },
        };
        let state = State { session, _place: place, is_new, begun: false, in_flight: false };
        Some(Lent { home: Arc::clone(self), state: Some(state), held_back: Vec::new(), in_transaction })
    }

    /// How many connections there are, how many of them rest, and how many there may be.
    pub(super) fn state(&self) -> (usize, usize, usize) {
        (self.open.load(Ordering::Relaxed), self.at_rest().len(), self.places_max)
    }

    /// Closes what rests, and soon what serves: nothing comes back, and nothing is lent any more.
    pub(super) async fn close(&self) {
        self.places.close();
        let resting = std::mem::take(&mut *self.at_rest());
        for session in resting {
            // What cannot say goodbye is gone already.
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

    /// `None` where the session did not become what was asked for.
    async fn connect(self: &Arc<Self>) -> Result<Option<Session>, sqlx::Error> {
        let mut connection = match PgConnection::connect_with(&self.options).await {
            Ok(connection) => connection,
            // A protocol violation: how a pooler refuses settings in the first packet.
            Err(sqlx::Error::Database(refusal)) if refusal.code().as_deref() == Some("08P01") => {
                return Ok(self.give_up());
            }
            Err(error) => return Err(error),
        };
        let asked = sqlx::query_as(opening::COUNTING_CHECK).persistent(false);
        let answer: (String, String, String) = asked.fetch_one(&mut connection).await?;
        if answer.0 != opening::COUNTING_ROLE || answer.1 != opening::COUNTING_PLANS {
            return Ok(self.give_up());
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        let (now, counted) = (Instant::now(), Counted(Arc::clone(self)));
        let prepared = HashMap::new();
        Ok(Some(Session { connection, prepared, born: now, rests_since: now, _counted: counted }))
    }

    /// While the database is on its way back. Whoever calls bounds the time.
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
    /// Its place among those that may be lent.
    _place: OwnedSemaphorePermit,
    /// Nothing can have happened to it at rest.
    is_new: bool,
    begun: bool,
    /// A message was sent, and its answer was not read to its end.
    in_flight: bool,
}

/// A connection that serves one transaction. It goes home by `commit`; where it is dropped, what was begun is rolled back
/// first, and where that cannot be said for sure it is closed.
pub(super) struct Lent {
    home: Arc<CountingConnections>,
    /// `None` once it is on its way home.
    state: Option<State>,
    /// Statements that go with the next message.
    held_back: Vec<Prepared>,
    /// Whether the statements stand in one transaction; otherwise each is one.
    in_transaction: bool,
}

impl Lent {
    /// Sends it, together with what was held back before.
    pub(super) async fn run(&mut self, statement: Prepared) -> Result<Reply, sqlx::Error> {
        self.held_back.push(statement);
        self.send("").await.map(|mut replies| replies.pop().unwrap_or_default())
    }

    /// Sends several in one message, with what was held back before. A reply for each of them.
    pub(super) async fn run_all(&mut self, statements: Vec<Prepared>) -> Result<Vec<Reply>, sqlx::Error> {
        let before = self.held_back.len();
        self.held_back.extend(statements);
        self.send("").await.map(|mut replies| replies.split_off(before.min(replies.len())))
    }

    /// Has it go with the next message, which tells of its failure.
    pub(super) fn hold_back(&mut self, statement: Prepared) {
        self.held_back.push(statement);
    }

    /// The connection, for a statement whose values are bound: within the transaction, after what was held back. It is
    /// not trusted again before `answered`.
    pub(super) async fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        let begun = self.state()?.begun;
        if !self.held_back.is_empty() || (self.in_transaction && !begun) {
            self.send("").await?;
        }
        let state = self.state()?;
        state.in_flight = true;
        Ok(&mut state.session.connection)
    }

    /// A statement's answer was read to its end, good or bad; a connection that broke has no answer.
    pub(super) fn answered<T>(&mut self, answer: &Result<T, sqlx::Error>) {
        if let Some(state) = &mut self.state {
            state.in_flight = !matches!(answer, Ok(_) | Err(sqlx::Error::Database(_)));
        }
    }

    /// Keeps what was done, with what was held back, and goes home. What is refused is rolled back before this is told, so
    /// that whoever tries again does not meet the locks of the first try.
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
            // It died at rest, as after a restart of the database all of them have, and nothing was done on it.
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
    /// A connection that is in doubt is dropped instead, and closes with that.
    async fn roll_back(mut self, home: &CountingConnections) {
        if self.in_flight {
            return;
        }
        let rollback = self.session.connection.execute("ROLLBACK");
        if let Ok(Ok(_)) = timeout(CLEANING_TIMEOUT, rollback).await {
            home.take_back(self.session);
        }
    }

    /// A reply for each statement.
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
        // After a failure it is not known which statements were prepared; and a broken connection has no answer.
        self.in_flight = match &answer {
            Ok(_) => false,
            Err(sqlx::Error::Database(_)) => is_preparing,
            Err(_) => true,
        };
        answer
    }
}

/// Whether the connection was gone before it could do anything.
fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(refusal) => refusal.code().is_some_and(|code| code.starts_with("57P")),
        _ => false,
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(state) = self.state.take() else { return };
        if !state.begun && !state.in_flight {
            self.home.take_back(state.session);
            return;
        }
        // Without a runtime the process is at its end, and the connection closes with it.
        let Ok(runtime) = Handle::try_current() else { return };
        let home = Arc::clone(&self.home);
        runtime.spawn(async move {
            state.roll_back(&home).await;
        });
    }
}
