//! Connections to the cluster as its owner.

use std::time::Duration;

use sea_orm::sqlx::postgres::{PgConnectOptions, PgSslMode};
use sea_orm::sqlx::{self, AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};

use super::cluster::OWNER;
use super::error::EmbeddedError;

const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// The result of an attempt to connect.
pub enum ServerProbe {
    Ready(Box<PgConnection>),
    NoDatabase,
    NotYet,
    WrongPassword,
}

pub async fn connect(port: u16, password: &str, database: &str) -> ServerProbe {
    let options = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port)
        .username(OWNER)
        .password(password)
        .database(database)
        .ssl_mode(PgSslMode::Disable)
        .disable_statement_logging();
    let tried = tokio::time::timeout(CONNECT_LIMIT, options.connect()).await;
    match tried {
        Ok(Ok(connection)) => ServerProbe::Ready(Box::new(connection)),
        Ok(Err(error)) => match sqlstate(&error).as_deref() {
            Some("28P01" | "28000") => ServerProbe::WrongPassword,
            Some("3D000") => ServerProbe::NoDatabase,
            _ => ServerProbe::NotYet,
        },
        Err(_) => ServerProbe::NotYet,
    }
}

/// Runs one statement, in which only quoted names and literals are not ours, and closes the connection.
pub async fn execute_and_close(mut connection: PgConnection, statement: String) -> Result<(), EmbeddedError> {
    let done = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await;
    done.map_err(|error| EmbeddedError::Statement(message_of(&error)))?;
    let _ = connection.close().await;
    Ok(())
}

/// `"name"` for a statement.
pub fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Encodes one component of a URL.
pub fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push_str(&hex::encode_upper([byte]));
        }
    }
    encoded
}

fn sqlstate(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// The server's message, without the statement, which may contain a password.
fn message_of(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

#[cfg(test)]
mod tests {
    use super::{percent_encode, quote_name};

    #[test]
    fn names_and_url_parts_cannot_end_early() {
        assert_eq!(quote_name("a\"; drop"), "\"a\"\"; drop\"");
        assert_eq!(percent_encode("p@ss/w:rd-1é"), "p%40ss%2Fw%3Ard-1%C3%A9");
    }
}
