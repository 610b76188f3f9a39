//! One open transaction. Every statement to Postgres goes through it.
//!
//! Costs: beginning is one round trip (see `begin_message`); a statement is one if it was prepared before on the
//! connection, and two if not or where statements stay unnamed; a commit is one.
//!
//! Promises: a dropped transaction is rolled back before the connection serves another; a transaction with a failed
//! statement cannot be committed, since Postgres would answer COMMIT with a silent rollback; no statement waits longer
//! than its time limit, even if the server hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ports::store::StoreError;
use sea_orm::sea_query::Values;
use sea_orm::sqlx::postgres::{PgQueryResult, PgRow};
use sea_orm::sqlx::query::Query;
use sea_orm::sqlx::{self, AssertSqlSafe, PgPool, Postgres, Transaction};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr, Statement};
use sea_query_sqlx::SqlxValues;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::error::{driver_error, is_unavailable, store_error};
use super::pinned_connections::{PinnedConnection, PinnedConnections};
use super::pipelined_statements::Prepared;

/// How much longer than Postgres' own limit we wait for its answer before we consider it hung.
const GRACE: Duration = Duration::from_millis(250);

/// The connection that the transaction runs on.
enum Link {
    Pooled(Transaction<'static, Postgres>),
    /// A pinned connection, on which BEGIN goes with the first statement.
    Kept(PinnedConnection),
}

pub(super) struct PgTransaction {
    // SeaORM executes on `&self`, the driver on `&mut`. Repositories borrow the unit of work mutably, so this lock is
    // never contended; it is tokio's since it is held across an await.
    link: Mutex<Link>,
    /// Whether statements are prepared by name. Not behind a transaction pooler, which would mix the names up.
    persistent: bool,
    /// How long one statement may take, by our own clock.
    time_limit_ms: AtomicU64,
    lock_ms: u64,
    failed: AtomicBool,
}

/// The terms of beginning a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpeningTerms {
    pub persistent: bool,
    pub statement_ms: u64,
    /// How long a statement may wait for a lock, in a scope that allows waiting.
    pub lock_ms: u64,
    /// How long beginning it may take.
    pub patience: Duration,
}

impl PgTransaction {
    /// Takes a connection and begins a transaction on it with `message`.
    ///
    /// Both happen in a task of their own: a caller that is dropped meanwhile cannot interrupt BEGIN, which would leave
    /// an open transaction that the driver does not know of (sqlx issue 4385). Instead, the wait is bounded.
    pub(super) async fn open(pool: &PgPool, message: String, terms: OpeningTerms) -> Result<Self, StoreError> {
        let opening = tokio::spawn(open_patiently(pool.clone(), message, Instant::now() + terms.patience));
        let opened = tokio::time::timeout(terms.patience + GRACE, opening)
            .await
            .map_err(|_| too_late())?
            .map_err(|_| StoreError::Unexpected("the task that opens a transaction ended early".into()))?;
        let connection = opened.map_err(|error| driver_error(&error))?;
        Ok(Self::over(Link::Pooled(connection), terms))
    }

    /// A transaction on a pinned connection, or `None` where the pool must be used. `in_transaction` is for statements
    /// that belong together; otherwise each is a transaction of its own, which saves BEGIN and COMMIT.
    pub(super) async fn lent(
        counting: &Arc<PinnedConnections>,
        in_transaction: bool,
        terms: OpeningTerms,
    ) -> Result<Option<Self>, StoreError> {
        let lent = tokio::time::timeout(terms.patience, counting.lend(in_transaction)).await.map_err(|_| too_late())?;
        Ok(lent.map(|lent| Self::over(Link::Kept(lent), terms)))
    }

    fn over(link: Link, terms: OpeningTerms) -> Self {
        Self {
            link: Mutex::new(link),
            persistent: terms.persistent,
            time_limit_ms: AtomicU64::new(terms.statement_ms),
            lock_ms: terms.lock_ms,
            failed: AtomicBool::new(false),
        }
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        if self.failed.load(Ordering::Relaxed) {
            return Err(StoreError::Unexpected(
                "a unit of work in which a statement failed was to be committed".into(),
            ));
        }
        let time_limit = self.time_limit();
        let commit = async {
            match self.link.into_inner() {
                Link::Pooled(transaction) => transaction.commit().await,
                Link::Kept(lent) => lent.commit().await,
            }
        };
        match tokio::time::timeout(time_limit, commit).await {
            Ok(outcome) => outcome.map_err(|error| match driver_error(&error) {
                StoreError::Unavailable(why) => StoreError::InDoubt(why),
                refused => refused,
            }),
            Err(_) => Err(StoreError::InDoubt("the database did not answer COMMIT in time".into())),
        }
    }

    /// Runs a statement whose result is not needed before the commit. Where possible it goes with COMMIT in one
    /// message, and then the commit reports its failure.
    pub(super) async fn run_last(&self, statement: Statement) -> Result<(), DbErr> {
        if let Link::Kept(lent) = &mut *self.link.lock().await
            && let Some(statement) = Prepared::of(&statement)
        {
            lent.hold_back(statement);
            return Ok(());
        }
        self.execute_raw(statement).await.map(drop)
    }

    /// Runs statements one after the other, in one message where possible, and returns the rows of each.
    pub(super) async fn query_together(&self, statements: Vec<Statement>) -> Result<Vec<Vec<QueryResult>>, DbErr> {
        if let Link::Kept(lent) = &mut *self.link.lock().await
            && let Some(prepared) = statements.iter().map(Prepared::of).collect::<Option<Vec<_>>>()
        {
            let replies = self.answer(lent.run_all(prepared)).await?;
            return Ok(replies.into_iter().map(|reply| reply.rows.into_iter().map(Into::into).collect()).collect());
        }
        let mut rows = Vec::with_capacity(statements.len());
        for statement in statements {
            rows.push(self.query_all_raw(statement).await?);
        }
        Ok(rows)
    }

    /// Runs a statement with bound values.
    pub(super) async fn run_bound(&self, statement: Statement) -> Result<(), DbErr> {
        let outcome = match &mut *self.link.lock().await {
            Link::Pooled(transaction) => self.answer(self.query(statement).execute(&mut **transaction)).await,
            Link::Kept(lent) => self.answer(self.bound(lent, statement)).await,
        };
        outcome.map(drop)
    }

    /// Sets the time limit of the following statements: for jobs, whose statements read whole tables.
    pub(super) async fn allow(&self, statement_ms: u64) -> Result<(), StoreError> {
        let sql = format!("SELECT set_config('statement_timeout', '{statement_ms}', true)");
        self.execute_unprepared(&sql).await.map_err(|error| store_error(&error))?;
        self.time_limit_ms.store(statement_ms, Ordering::Relaxed);
        Ok(())
    }

    pub(super) const fn lock_ms(&self) -> u64 {
        self.lock_ms
    }

    fn time_limit(&self) -> Duration {
        Duration::from_millis(self.time_limit_ms.load(Ordering::Relaxed)) + GRACE
    }

    fn query(&self, statement: Statement) -> Query<'static, Postgres, SqlxValues> {
        let values = statement.values.unwrap_or_else(|| Values(Vec::new()));
        sqlx::query_with(AssertSqlSafe(statement.sql), SqlxValues(values)).persistent(self.persistent)
    }

    async fn rows(&self, lent: &mut PinnedConnection, statement: Statement) -> Result<Vec<PgRow>, sqlx::Error> {
        if let Some(prepared) = Prepared::of(&statement) {
            return lent.run(prepared).await.map(|reply| reply.rows);
        }
        let rows = self.query(statement).fetch_all(lent.connection().await?).await;
        lent.answered(&rows);
        rows
    }

    async fn bound(&self, lent: &mut PinnedConnection, statement: Statement) -> Result<PgQueryResult, sqlx::Error> {
        let outcome = self.query(statement).execute(lent.connection().await?).await;
        lent.answered(&outcome);
        outcome
    }

    /// Waits for an answer within the time limit, and marks the transaction as failed on an error.
    async fn answer<T>(&self, work: impl Future<Output = Result<T, sqlx::Error>> + Send) -> Result<T, DbErr> {
        let answer = tokio::time::timeout(self.time_limit(), work).await.unwrap_or_else(|_| {
            let late = std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer within the time limit");
            Err(sqlx::Error::Io(late))
        });
        answer.map_err(|error| {
            self.failed.store(true, Ordering::Relaxed);
            DbErr::Query(RuntimeErr::SqlxError(error.into()))
        })
    }
}

fn too_late() -> StoreError {
    StoreError::Unavailable("the database did not open a transaction in time".into())
}

/// Begins a transaction, trying other connections if one is dead: after a restart of the database, all idle ones are.
/// Nothing was done on them, so that is safe.
async fn open_patiently(
    pool: PgPool,
    message: String,
    deadline: Instant,
) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let mut attempts_left = pool.options().get_max_connections();
    loop {
        match pool.begin_with(AssertSqlSafe(message.clone())).await {
            Err(sqlx::Error::PoolTimedOut) => return Err(sqlx::Error::PoolTimedOut),
            Err(error) if is_unavailable(&error) && attempts_left > 0 && Instant::now() < deadline => {
                attempts_left -= 1;
            }
            outcome => return outcome,
        }
    }
}

#[async_trait]
impl ConnectionTrait for PgTransaction {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let outcome = match &mut *self.link.lock().await {
            Link::Pooled(transaction) => self.answer(self.query(statement).execute(&mut **transaction)).await,
            Link::Kept(lent) => {
                if let Some(prepared) = Prepared::of(&statement) {
                    self.answer(lent.run(prepared)).await.map(|reply| reply.outcome)
                } else {
                    self.answer(self.bound(lent, statement)).await
                }
            }
        };
        outcome.map(Into::into)
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let raw = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        let outcome = match &mut *self.link.lock().await {
            Link::Pooled(transaction) => self.answer(raw.execute(&mut **transaction)).await,
            Link::Kept(lent) => {
                let work = async {
                    let outcome = raw.execute(lent.connection().await?).await;
                    lent.answered(&outcome);
                    outcome
                };
                self.answer(work).await
            }
        };
        outcome.map(Into::into)
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let row = match &mut *self.link.lock().await {
            Link::Pooled(transaction) => self.answer(self.query(statement).fetch_optional(&mut **transaction)).await?,
            Link::Kept(lent) => self.answer(self.rows(lent, statement)).await?.into_iter().next(),
        };
        Ok(row.map(Into::into))
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let rows = match &mut *self.link.lock().await {
            Link::Pooled(transaction) => self.answer(self.query(statement).fetch_all(&mut **transaction)).await?,
            Link::Kept(lent) => self.answer(self.rows(lent, statement)).await?,
        };
        Ok(rows.into_iter().map(Into::into).collect())
    }
}
