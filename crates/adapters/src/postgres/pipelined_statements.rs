//! Pipelined statements: several in one message of the simple protocol, and the replies to each of them.
//!
//! Statements are prepared in SQL, once per session, in the message that first needs them. Their values are part of the
//! text, so only values that `array_literals` can write are supported.

use std::collections::HashMap;
use std::fmt::Write;
use std::vec::IntoIter;

use sea_orm::Statement;
use sea_orm::sqlx::Either;
use sea_orm::sqlx::postgres::{PgQueryResult, PgRow};

use super::array_literals;

/// A statement that can share a message with others.
pub(super) struct Prepared {
    sql: String,
    arguments: String,
}

impl Prepared {
    /// `None` where the values must be bound.
    pub(super) fn of(statement: &Statement) -> Option<Self> {
        let arguments = array_literals::arguments(statement.values.as_ref().map_or(&[], |values| &values.0))?;
        Some(Self { sql: statement.sql.clone(), arguments })
    }
}

/// The reply to a statement: its rows, and how many were written.
#[derive(Default)]
pub(super) struct Reply {
    pub rows: Vec<PgRow>,
    pub outcome: PgQueryResult,
}

pub(super) struct Message {
    pub text: String,
    /// Whether it prepares a statement.
    pub is_preparing: bool,
    /// Collects the replies.
    pub replies: Replies,
}

impl Message {
    /// `known` has the statements already prepared on the session, by text; those of this message are added.
    pub(super) fn of(statements: &[Prepared], begins: bool, end: &str, known: &mut HashMap<String, usize>) -> Self {
        let mut text = String::with_capacity(64 + statements.iter().map(|one| one.arguments.len() + 32).sum::<usize>());
        let mut executing = Vec::with_capacity(statements.len() + 2);
        if begins {
            text.push_str("BEGIN;");
            executing.push(None);
        }
        let mut is_preparing = false;
        for (place, Prepared { sql, arguments }) in statements.iter().enumerate() {
            let number = if let Some(number) = known.get(sql) {
                *number
            } else {
                let number = known.len();
                // Writing to a String cannot fail. The line end closes a comment at the end of the SQL.
                let _ = write!(text, "PREPARE counting_{number} AS {sql}\n;");
                known.insert(sql.clone(), number);
                executing.push(None);
                is_preparing = true;
                number
            };
            let _ = write!(text, "EXECUTE counting_{number} {arguments};");
            executing.push(Some(place));
        }
        text.push_str(end);
        Self { text, is_preparing, replies: Replies::of(statements.len(), executing) }
    }
}

/// The replies to a message, as they arrive.
pub(super) struct Replies {
    gathered: Vec<Reply>,
    /// For each remaining command of the message, the statement that it executes, if any.
    executing: IntoIter<Option<usize>>,
    now: Option<usize>,
}

impl Replies {
    fn of(statements: usize, executing: Vec<Option<usize>>) -> Self {
        let mut executing = executing.into_iter();
        let now = executing.next().flatten();
        Self { gathered: (0..statements).map(|_| Reply::default()).collect(), executing, now }
    }

    pub(super) fn add(&mut self, part: Either<PgQueryResult, PgRow>) {
        let reply = self.now.and_then(|place| self.gathered.get_mut(place));
        match (part, reply) {
            (Either::Right(row), Some(reply)) => reply.rows.push(row),
            (Either::Right(_), None) => {}
            (Either::Left(outcome), reply) => {
                if let Some(reply) = reply {
                    reply.outcome = outcome;
                }
                self.now = self.executing.next().flatten();
            }
        }
    }

    pub(super) fn into_inner(self) -> Vec<Reply> {
        self.gathered
    }
}
