//! The runner: every statement that changes the schema goes through it.
//!
//! Promise: no statement of a migration waits for a lock longer than 300 ms, because all other sessions queue behind a
//! waiting ACCESS EXCLUSIVE lock. A transaction without its lock is rolled back and retried after a pause, until the
//! run has waited `patience` in total; then the run ends and names the blockers. A transaction is applied fully or not
//! at all. Cost: one more statement per transaction. While a transaction waits, its blockers are queried every 100 ms
//! on a separate connection, opened at the first wait: an error on the lock's connection would release the lock.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, TransactionTrait};

use tokio::sync::OnceCell;

use crate::connection::{connect, is_busy, query_all, query_one};
use crate::lock::MigrationLock;

/// The default for how long a run waits for locks in total.
pub const LOCK_PATIENCE: Duration = Duration::from_mins(2);

const LOCK_TIMEOUT_MS: u64 = 300;
const BLOCKERS_PERIOD: Duration = Duration::from_millis(100);
/// A pause is longer than the wait before it, so that other sessions get their locks between two attempts.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(3);

pub struct StepRunner {
    pub connection: DatabaseConnection,
    lock: MigrationLock,
    database_url: String,
    watcher: OnceCell<DatabaseConnection>,
    process: i32,
    patience: Duration,
    waited_ms: AtomicU64,
}

impl StepRunner {
    /// Takes the migration lock and opens the connection to work on.
    pub async fn start(database_url: &str, patience: Duration) -> anyhow::Result<Self> {
        let lock = MigrationLock::acquire(database_url).await?;
        let connection = connect(database_url).await?;
        // A login may have a statement timeout, and an index on a large table takes long.
        connection.execute_unprepared("SET statement_timeout = 0").await?;
        let process = query_one(&connection, "SELECT pg_backend_pid() AS process").await?.try_get("", "process")?;
        Ok(Self {
            connection,
            lock,
            database_url: database_url.to_owned(),
            watcher: OnceCell::new(),
            process,
            patience,
            waited_ms: AtomicU64::new(0),
        })
    }

    /// Ends a run, whatever its result, and lets the next one begin.
    pub async fn end<T>(self, outcome: anyhow::Result<T>) -> anyhow::Result<T> {
        if let Some(watcher) = self.watcher.into_inner() {
            watcher.close().await.ok();
        }
        self.lock.end(self.connection, outcome).await
    }

    /// Runs the texts in one transaction. Returns how many rows each of them changed.
    pub async fn transaction(&self, what: &str, texts: &[&str]) -> anyhow::Result<Vec<u64>> {
        let mut wait = Wait::new(self, what);
        loop {
            let (outcome, blocker) = self.watched(self.attempt(texts)).await;
            match outcome {
                Err(error) if is_busy(&error) => wait.pause(blocker).await?,
                outcome => return outcome.with_context(|| what.to_owned()),
            }
        }
    }

    async fn attempt(&self, texts: &[&str]) -> Result<Vec<u64>, DbErr> {
        let transaction = self.connection.begin().await?;
        transaction.execute_unprepared(&format!("SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")).await?;
        let mut rows = Vec::with_capacity(texts.len());
        for text in texts {
            rows.push(transaction.execute_unprepared(text).await?.rows_affected());
        }
        transaction.commit().await?;
        Ok(rows)
    }

    /// Creates an index CONCURRENTLY, outside a transaction. It waits for older transactions and blocks no other
    /// session, so its lock may take the whole patience. An incomplete index of an earlier attempt is dropped first.
    pub async fn index_concurrently(&self, name: &str, statement: &str) -> anyhow::Result<()> {
        let what = format!("the index {name}");
        let mut wait = Wait::new(self, &what);
        loop {
            let (outcome, blocker) = self.watched(self.attempt_index(name, statement)).await;
            match outcome {
                Err(error) if is_busy(&error) => wait.pause(blocker).await?,
                outcome => return outcome.with_context(|| what.clone()),
            }
        }
    }

    async fn attempt_index(&self, name: &str, statement: &str) -> Result<(), DbErr> {
        let left = self.patience.saturating_sub(self.waited()).as_millis().max(u128::from(LOCK_TIMEOUT_MS));
        self.connection.execute_unprepared(&format!("SET lock_timeout = {left}")).await?;
        let undo = format!("DROP INDEX CONCURRENTLY IF EXISTS public.{name}");
        let mut outcome = self.connection.execute_unprepared(&undo).await;
        if outcome.is_ok() {
            outcome = self.connection.execute_unprepared(statement).await;
        }
        self.connection.execute_unprepared("RESET lock_timeout").await?;
        outcome.map(drop)
    }

    fn waited(&self) -> Duration {
        Duration::from_millis(self.waited_ms.load(Ordering::Relaxed))
    }

    /// Runs the work. Returns its output with the last blockers seen meanwhile.
    async fn watched<T>(&self, work: impl Future<Output = T>) -> (T, Option<String>) {
        let mut work = pin!(work);
        let mut blocker = None;
        loop {
            tokio::select! {
                biased;
                outcome = &mut work => return (outcome, blocker),
                () = tokio::time::sleep(BLOCKERS_PERIOD) => {}
            }
            // The query runs concurrently with the work; if it fails, the earlier result is kept.
            let mut look = pin!(self.blockers());
            tokio::select! {
                biased;
                outcome = &mut work => return (outcome, blocker),
                seen = &mut look => blocker = seen.ok().flatten().or(blocker),
            }
        }
    }

    async fn blockers(&self) -> anyhow::Result<Option<String>> {
        let watcher = self.watcher.get_or_try_init(|| connect(&self.database_url)).await?;
        let sql = format!(
            "SELECT format('process %s (%s, application %s, %s for %s s): %s', a.pid, coalesce(a.usename, '?'), \
             coalesce(nullif(a.application_name, ''), '?'), coalesce(a.state, '?'), \
             coalesce(floor(extract(epoch FROM clock_timestamp() - a.xact_start))::text, '?'), \
             left(regexp_replace(a.query, '\\s+', ' ', 'g'), 200)) AS line \
             FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids({})) AS b (pid) JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid",
            self.process
        );
        let mut lines = Vec::new();
        for row in query_all(watcher, &sql).await? {
            lines.push(row.try_get::<String>("", "line")?);
        }
        Ok((!lines.is_empty()).then(|| lines.join("; ")))
    }
}

/// The attempts of one piece of work.
struct Wait<'a> {
    runner: &'a StepRunner,
    what: &'a str,
    tried_at: Instant,
    pause: Duration,
    blocker: Option<String>,
}

impl<'a> Wait<'a> {
    fn new(runner: &'a StepRunner, what: &'a str) -> Self {
        Self { runner, what, tried_at: Instant::now(), pause: PAUSE_FIRST, blocker: None }
    }

    /// Pauses after a failed attempt, or ends the run if its patience is used up.
    async fn pause(&mut self, blocker: Option<String>) -> anyhow::Result<()> {
        self.blocker = blocker.or(self.blocker.take());
        let tried = self.tried_at.elapsed() + self.pause;
        let tried_ms = u64::try_from(tried.as_millis()).unwrap_or(u64::MAX);
        self.runner.waited_ms.fetch_add(tried_ms, Ordering::Relaxed);
        let Self { runner, what, .. } = self;
        if runner.waited() >= runner.patience {
            bail!(
                "{what} is in use, and the run has waited {} s for locks in all. It was not changed; what was done before it \
                 stays, and the next run goes on from there. In the way: {}",
                runner.patience.as_secs(),
                self.blocker.as_deref().unwrap_or("a transaction that has ended since")
            );
        }
        tracing::info!(
            "{what} is in use and is tried again: {}",
            self.blocker.as_deref().unwrap_or("its lock is taken")
        );
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.tried_at = Instant::now();
        Ok(())
    }
}
