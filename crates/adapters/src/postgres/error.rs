//! Maps Postgres errors to the errors of the ports. SQLSTATE is read only here.
//!
//! The texts go to the log. They contain neither the address of the database nor a row's value: Postgres' DETAIL,
//! CONTEXT and the messages of class 22, which quote the value that did not fit, are left out.

use ports::store::StoreError;
use sea_orm::sqlx;
use sea_orm::sqlx::postgres::PgDatabaseError;
use sea_orm::{DbErr, RuntimeErr};

/// Maps an error of `SeaORM`.
pub(super) fn store_error(error: &DbErr) -> StoreError {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(error))
        | DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error)) => driver_error(error),
        DbErr::ConnectionAcquire(_) => StoreError::Unavailable("no connection could be had in time".into()),
        // The rest are mismatches between our code and the schema; their texts name columns and types.
        other => StoreError::Unexpected(other.to_string()),
    }
}

/// Maps an error of the driver.
pub(super) fn driver_error(error: &sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Database(refusal) => match refusal.try_downcast_ref::<PgDatabaseError>() {
            Some(refusal) => refused(&Refusal {
                state: refusal.code(),
                constraint: refusal.constraint(),
                column: refusal.column(),
                message: refusal.message(),
            }),
            None => StoreError::Unexpected("an error of another database".into()),
        },
        // A refused certificate comes as an I/O error.
        sqlx::Error::Io(error)
            if error.get_ref().is_some_and(|inner| inner.downcast_ref::<rustls::Error>().is_some()) =>
        {
            StoreError::Unavailable(format!("the TLS of the database cannot be used: {error}"))
        }
        sqlx::Error::Io(error) => StoreError::Unavailable(format!("the connection broke: {error}")),
        sqlx::Error::Tls(why) => StoreError::Unavailable(format!("no TLS session could be agreed on: {why}")),
        sqlx::Error::PoolTimedOut => StoreError::Unavailable("no connection was free in time".into()),
        sqlx::Error::PoolClosed => StoreError::Unavailable("the pool is closed".into()),
        sqlx::Error::WorkerCrashed => StoreError::Unavailable("the connection's task ended".into()),
        // The text of a configuration error can quote the address of the database.
        sqlx::Error::Configuration(_) => StoreError::Unexpected("the connection settings are not understood".into()),
        other => StoreError::Unexpected(other.to_string()),
    }
}

/// Whether the error does not concern the statement, only that the database could not be reached.
pub(super) fn is_unavailable(error: &sqlx::Error) -> bool {
    matches!(driver_error(error), StoreError::Unavailable(_))
}

/// The fields of an error response that decisions and texts may use.
struct Refusal<'a> {
    state: &'a str,
    constraint: Option<&'a str>,
    column: Option<&'a str>,
    message: &'a str,
}

fn refused(refusal: &Refusal<'_>) -> StoreError {
    let state = refusal.state;
    let class = state.get(..2).unwrap_or_default();
    match (class, state) {
        // Serialization failure, deadlock.
        (_, "40001" | "40P01") => StoreError::Conflict,
        // Lock not available within lock_timeout.
        (_, "55P03") => StoreError::Busy,
        ("23", _) => {
            // A not-null violation has no constraint name in Postgres 15, so the column's name is used.
            let name = refusal.constraint.or(refusal.column).unwrap_or(state);
            StoreError::Constraint { constraint: name.to_owned() }
        }
        // Connection exceptions (also PgBouncer's own), lack of resources, shutdown and start-up, I/O errors, the time
        // limits of statements and of idle transactions, and a server that became a standby.
        ("08" | "53" | "57" | "58", _) | (_, "25P03" | "25P04" | "25006") => {
            StoreError::Unavailable(format!("{} (SQLSTATE {state})", refusal.message))
        }
        // 22023 is an invalid setting, such as a missing role: our fault, so its text is reported.
        ("22", state) if state != "22023" => StoreError::Unexpected(format!("a value did not fit (SQLSTATE {state})")),
        _ => StoreError::Unexpected(format!("{} (SQLSTATE {state})", refusal.message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(state: &str, constraint: Option<&str>, column: Option<&str>) -> StoreError {
        refused(&Refusal { state, constraint, column, message: "said \"secret\"" })
    }

    #[test]
    fn a_conflict_can_be_repeated() {
        for state in ["40001", "40P01"] {
            assert!(matches!(of(state, None, None), StoreError::Conflict), "{state}");
        }
        assert!(matches!(of("55P03", None, None), StoreError::Busy));
    }

    #[test]
    fn a_constraint_is_told_by_name_and_a_missing_value_by_its_column() {
        let name = |error| match error {
            StoreError::Constraint { constraint } => constraint,
            other => panic!("{other}"),
        };
        assert_eq!(name(of("23505", Some("users_pkey"), None)), "users_pkey");
        assert_eq!(name(of("23502", None, Some("name"))), "name");
        assert_eq!(name(of("23514", None, None)), "23514");
    }

    #[test]
    fn a_database_that_is_away_is_unavailable() {
        for state in ["08006", "08P01", "53300", "57014", "57P01", "57P02", "57P03", "25P03", "25006"] {
            assert!(matches!(of(state, None, None), StoreError::Unavailable(_)), "{state}");
        }
        assert!(matches!(driver_error(&sqlx::Error::PoolTimedOut), StoreError::Unavailable(_)));
        assert!(matches!(of("42501", None, None), StoreError::Unexpected(_)));
    }

    #[test]
    fn a_value_that_did_not_fit_is_not_told() {
        assert!(!of("22P02", None, None).to_string().contains("secret"));
    }
}
