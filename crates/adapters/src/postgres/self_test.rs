//! Tests the connection to Postgres before the service uses it.
//!
//! A transaction pooler without support for prepared statements gives one client's statement to another, and wrong rows
//! come back without an error. So two connections of the service's pool run statements with the same names and
//! different meanings, as the service would, and compare the answers.
//! Costs: two connections, about 250 round trips, once at start.

use std::time::Duration;

use ports::store::StoreError;
use sea_orm::sqlx::error::DatabaseError;
use sea_orm::sqlx::pool::PoolConnection;
use sea_orm::sqlx::{self, Connection, Postgres, Row};
use uuid::Uuid;

use super::error::{driver_error, is_unavailable};
use super::store::PgStore;

/// Runs in turn detect poolers with one free server connection, concurrent runs those with several.
const ROUNDS_IN_TURN: i64 = 4;
const ROUNDS_AT_ONCE: i64 = 12;

/// The time limit of the whole test; after it the database counts as unavailable.
const PATIENCE: Duration = Duration::from_secs(20);

const REMEDY: &str = "statements were answered with another connection's results: there is a transaction pooler \
    between the service and Postgres. Set database.pooler = \"transaction\", or use PgBouncer >= 1.21 with \
    max_prepared_statements, or a direct address";

enum Finding {
    /// The database could not be reached, which says nothing about a pooler.
    Away(StoreError),
    /// An answer was wrong, or an error showed that statement names are mixed up.
    Mixed(String),
}

impl From<sqlx::Error> for Finding {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(DatabaseError::code).unwrap_or_default();
        // A protocol violation (08P01) is the sign of a mixed-up statement with other parameters. A refused login (28)
        // or an unknown database (3D) fails before any statement.
        let refused_at_login = code.starts_with("28") || code.starts_with("3D");
        match driver_error(&error) {
            away if refused_at_login || (is_unavailable(&error) && code != "08P01") => Self::Away(away),
            other => Self::Mixed(other.to_string()),
        }
    }
}

impl PgStore {
    /// Whether every connection gets its own answers. The error text of a failure names the fix.
    pub async fn self_test(&self) -> Result<(), StoreError> {
        let pool = self.pool.clone();
        let persistent = self.persistent;
        // In a task of its own, like every transaction: a caller that is dropped does not interrupt it.
        let test = tokio::spawn(async move {
            let (mut first, mut second) = (pool.acquire().await?, pool.acquire().await?);
            for round in 0..ROUNDS_IN_TURN {
                run_round(&mut first, persistent, round, Direction::Forward).await?;
                run_round(&mut second, persistent, round, Direction::Backward).await?;
            }
            let rounds = |connection, direction| run_rounds(connection, persistent, direction);
            let both =
                futures_util::join!(rounds(&mut first, Direction::Forward), rounds(&mut second, Direction::Backward));
            both.0.and(both.1)
        });
        match tokio::time::timeout(PATIENCE, test).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(Finding::Away(error)))) => Err(error),
            Ok(Ok(Err(Finding::Mixed(seen)))) => Err(StoreError::Unexpected(format!("{REMEDY} ({seen})"))),
            Ok(Err(_)) => Err(StoreError::Unexpected("the self-test of the database ended early".into())),
            Err(_) => Err(StoreError::Unavailable("the self-test of the database did not end in time".into())),
        }
    }
}

/// The order in which a connection runs the statements: the same numbers name different statements on the two.
#[derive(Clone, Copy)]
enum Direction {
    Forward,
    Backward,
}

async fn run_rounds(
    connection: &mut PoolConnection<Postgres>,
    persistent: bool,
    direction: Direction,
) -> Result<(), Finding> {
    for round in 0..ROUNDS_AT_ONCE {
        run_round(connection, persistent, round, direction).await?;
    }
    Ok(())
}

/// One transaction with every statement in it.
async fn run_round(
    connection: &mut PoolConnection<Postgres>,
    persistent: bool,
    round: i64,
    direction: Direction,
) -> Result<(), Finding> {
    let mut transaction = connection.begin().await?;
    for step in 0..STATEMENTS {
        let which = match direction {
            Direction::Forward => step,
            Direction::Backward => STATEMENTS - 1 - step,
        };
        ask(&mut transaction, persistent, which, round).await?;
    }
    transaction.commit().await?;
    Ok(())
}

const STATEMENTS: i64 = 4;

/// Runs one of the statements and compares. Two have the same shape and different meanings, so that a mix-up gives a
/// wrong number; two have other columns and parameters, so that it gives an error.
async fn ask(connection: &mut sqlx::PgConnection, persistent: bool, which: i64, round: i64) -> Result<(), Finding> {
    let right = match which {
        0 => {
            let query = sqlx::query("SELECT $1::bigint + 1000 AS answer").bind(round).persistent(persistent);
            query.fetch_one(connection).await?.try_get::<i64, _>("answer")? == round + 1000
        }
        1 => {
            let query = sqlx::query("SELECT $1::bigint + 2000 AS answer").bind(round).persistent(persistent);
            query.fetch_one(connection).await?.try_get::<i64, _>("answer")? == round + 2000
        }
        2 => {
            let id = Uuid::from_u128(round.unsigned_abs().into());
            let query = sqlx::query("SELECT $1::uuid AS id, $2::text AS name").bind(id).bind("third");
            let row = query.persistent(persistent).fetch_one(connection).await?;
            row.try_get::<Uuid, _>("id")? == id && row.try_get::<&str, _>("name")? == "third"
        }
        _ => {
            let query = sqlx::query("SELECT $1::text || '!' AS answer").bind("fourth").persistent(persistent);
            query.fetch_one(connection).await?.try_get::<&str, _>("answer")? == "fourth!"
        }
    };
    if right { Ok(()) } else { Err(Finding::Mixed(format!("statement {which} had a wrong answer"))) }
}
