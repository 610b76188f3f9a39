//! A test of the way to Postgres, before anything rests on it.
//!
//! A transaction pooler that does not know prepared statements hands one client's statement to another, and the wrong
//! rows come back with no error. So two connections of the service's own pool run
//! statements of the same names and different meanings, as the service would, and compare the answers.
//! Costs: two connections, about 250 round trips, once at start.

use std::time::Duration;

use ports::store::StoreError;
use sea_orm::sqlx::error::DatabaseError;
use sea_orm::sqlx::pool::PoolConnection;
use sea_orm::sqlx::{self, Connection, Postgres, Row};
use uuid::Uuid;

use super::error::{driver_error, is_unavailable};
use super::store::PgStore;

/// One after the other catches poolers with a free server connection, both at once those with several.
const ROUNDS_IN_TURN: i64 = 4;
const ROUNDS_AT_ONCE: i64 = 12;

/// How long it may take altogether; then the database counts as away.
const PATIENCE: Duration = Duration::from_secs(20);

const REMEDY: &str = "statements were answered with another connection's results: there is a transaction pooler \
    between the service and Postgres. Set database.pooler = \"transaction\", or use PgBouncer >= 1.21 with \
    max_prepared_statements, or a direct address";

enum Finding {
    /// The database could not be asked, which says nothing of a pooler.
    Away(StoreError),
    /// An answer was wrong, or an error showed that names of statements are mixed up.
    Mixed(String),
}

impl From<sqlx::Error> for Finding {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(DatabaseError::code).unwrap_or_default();
        // A protocol violation (08P01) is how a mixed-up statement with other parameters shows itself. Who may not log
        // in (28) or names no database (3D) never got as far as a statement.
        let refused_at_login = code.starts_with("28") || code.starts_with("3D");
        match driver_error(&error) {
            away if refused_at_login || (is_unavailable(&error) && code != "08P01") => Self::Away(away),
            other => Self::Mixed(other.to_string()),
        }
    }
}

impl PgStore {
    /// Whether every connection gets its own answers. Refuses with a text that names the fix where it does not.
    pub async fn self_test(&self) -> Result<(), StoreError> {
        let pool = self.pool.clone();
        let persistent = self.persistent;
        // In a task of its own, like every transaction: a caller that gives up does not cut it in flight.
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

/// In which order a connection runs the statements: the same numbers name different statements on the two.
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

/// Runs one of the statements and compares. Two have the same shape and another meaning, so that a mix-up shows as a
/// wrong number; two have other columns and parameters, so that it shows as an error.
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
