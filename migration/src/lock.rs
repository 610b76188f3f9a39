//! The lock of a run: a row of a table on which only the owner has rights.
//!
//! Promise: two runners on one database never work at the same time, and no other login can block them. An advisory
//! lock could be taken by any login, since its key is known or can be read in `pg_locks`. Cost: one more connection
//! during a run, with an open idle transaction.
//!
//! The table also has a row for each SQL job that runs once at a time, and records what `temporary.sql` revoked. It is
//! not created by a step, since the first step already needs it; the last `down` drops it.

use std::time::Duration;

use anyhow::{Context, bail};
use sea_orm_migration::sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, Statement, TransactionTrait,
};

use crate::connection::{connect, has_code, is_passing, table_exists};
use crate::objects::{LOCKS, RECORD};

const TRIES: u32 = 1200;
const PAUSE: Duration = Duration::from_millis(250);

/// For two runners that create the table at once, and for one that drops it while another waits.
const TRIES_TO_MAKE: u32 = 50;
const PAUSE_TO_MAKE: Duration = Duration::from_millis(20);

/// No table.
const UNDEFINED_TABLE: &str = "42P01";
const DUPLICATE_TABLE: &str = "42P07";

/// Afterwards only the owner has rights, whatever default privileges granted.
pub const MAKE: &str = "
CREATE TABLE IF NOT EXISTS public.product_base_locks (name varchar(50) NOT NULL, CONSTRAINT product_base_locks_pkey PRIMARY KEY (name));
DO $lock$
DECLARE
    role_name text;
BEGIN
    IF NOT (SELECT c.relrowsecurity FROM pg_catalog.pg_class c WHERE c.oid = 'public.product_base_locks'::regclass) THEN
        ALTER TABLE public.product_base_locks ENABLE ROW LEVEL SECURITY;
        COMMENT ON TABLE public.product_base_locks IS 'product-base: one row for each work that is done once at a time';
    END IF;
    FOR role_name IN
        SELECT DISTINCT CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE x.grantee::regrole::text END
        FROM pg_catalog.pg_class c CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) x
        WHERE c.oid = 'public.product_base_locks'::regclass AND x.grantee <> c.relowner
    LOOP
        EXECUTE format('REVOKE ALL ON TABLE public.product_base_locks FROM %s', role_name);
    END LOOP;
END
$lock$;
INSERT INTO public.product_base_locks (name) VALUES ('migration'), ('roll_up_usage'), ('maintain_partitions') ON CONFLICT DO NOTHING";

/// The lock is kept until it is released, or until its connection ends with the process.
pub struct MigrationLock {
    connection: DatabaseConnection,
    transaction: DatabaseTransaction,
}

impl MigrationLock {
    pub async fn acquire(database_url: &str) -> anyhow::Result<Self> {
        Self::wait(connect(database_url).await?, false).await
    }

    /// For read-only commands: changes nothing. Without a migrated schema there is nothing to lock.
    pub async fn acquire_if_there(database_url: &str) -> anyhow::Result<Option<Self>> {
        let connection = connect(database_url).await?;
        if table_exists(&connection, LOCKS).await? {
            return Self::wait(connection, true).await.map(Some);
        }
        connection.close().await?;
        Ok(None)
    }

    async fn wait(connection: DatabaseConnection, mut is_made: bool) -> anyhow::Result<Self> {
        let mut is_told = false;
        for _ in 0..TRIES {
            if !is_made {
                make(&connection).await.context("the table of the locks could not be made")?;
                is_made = true;
            }
            match take(&connection).await {
                Ok(Some(transaction)) => return Ok(Self { connection, transaction }),
                Ok(None) => {}
                // A `down` dropped it meanwhile.
                Err(error) if has_code(&error, &[UNDEFINED_TABLE]) => is_made = false,
                Err(error) => return Err(error.into()),
            }
            if is_made && !is_told {
                tracing::info!("another migration runs on this database: waiting for it");
                is_told = true;
            }
            tokio::time::sleep(PAUSE).await;
        }
        bail!(
            "another migration has held its lock for five minutes: see pg_stat_activity where application_name = 'product-base-migration'"
        )
    }

    /// Ends a run, whatever its result: closes its connection and lets the next one begin.
    pub async fn end<T>(self, work: DatabaseConnection, outcome: anyhow::Result<T>) -> anyhow::Result<T> {
        let closed = work.close().await;
        let released = self.release().await;
        let outcome = outcome?;
        closed.context("the connection did not close")?;
        released?;
        Ok(outcome)
    }

    /// If none of our tables is left, the lock table is dropped too.
    async fn release(self) -> anyhow::Result<()> {
        let Self { connection, transaction } = self;
        if !table_exists(&transaction, RECORD).await? {
            transaction.execute_unprepared(&format!("DROP TABLE public.{LOCKS}")).await?;
        }
        transaction.commit().await.context("the lock could not be released")?;
        connection.close().await.context("the connection of the lock did not close")
    }
}

async fn make(connection: &DatabaseConnection) -> Result<(), DbErr> {
    for attempt in 1..=TRIES_TO_MAKE {
        match connection.execute_unprepared(MAKE).await {
            Err(error)
                if attempt < TRIES_TO_MAKE
                    && (is_passing(&error) || has_code(&error, &[UNDEFINED_TABLE, DUPLICATE_TABLE])) =>
            {
                tokio::time::sleep(PAUSE_TO_MAKE).await;
            }
            outcome => return outcome.map(drop),
        }
    }
    Ok(())
}

/// The transaction that has the row locked, or `None` while another one has.
async fn take(connection: &DatabaseConnection) -> Result<Option<DatabaseTransaction>, DbErr> {
    let transaction = connection.begin().await?;
    // The transaction stays idle for as long as the run takes, whatever timeouts the database sets.
    transaction
        .execute_unprepared(
            "SELECT set_config(s.name, '0', true) FROM pg_catalog.pg_settings s \
             WHERE s.name IN ('idle_in_transaction_session_timeout', 'transaction_timeout')",
        )
        .await?;
    let row = Statement::from_string(
        DbBackend::Postgres,
        format!("SELECT l.name FROM public.{LOCKS} l WHERE l.name = 'migration' FOR UPDATE SKIP LOCKED"),
    );
    if transaction.query_one_raw(row).await?.is_some() {
        return Ok(Some(transaction));
    }
    transaction.rollback().await?;
    Ok(None)
}
