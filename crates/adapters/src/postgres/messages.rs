//! Messages: several statements in one, by the simple protocol, and what comes back for each of them.
//!
//! Statements are prepared in SQL, once a session, in the message that first needs them. Their values stand in the text, so
//! only those that `literals` can write go this way.

use std::collections::HashMap;
use std::fmt::Write;
use std::vec::IntoIter;

use sea_orm::Statement;
use sea_orm::sqlx::Either;
use sea_orm::sqlx::postgres::{PgQueryResult, PgRow};

use super::literals;

/// A statement that can travel with others.
pub(super) struct Prepared {
    sql: String,
    arguments: String,
}

impl Prepared {
    /// `None` where its values have to be bound.
    pub(super) fn of(statement: &Statement) -> Option<Self> {
        let arguments = literals::arguments(statement.values.as_ref().map_or(&[], |values| &values.0))?;
        Some(Self { sql: statement.sql.clone(), arguments })
    }
}

/// What came back for a statement: the rows, and how many were written.
#[derive(Default)]
pub(super) struct Reply {
    pub rows: Vec<PgRow>,
    pub outcome: PgQueryResult,
}

pub(super) struct Message {
    pub text: String,
    /// Whether something is prepared by it.
    pub is_preparing: bool,
    /// Where its answer is to be gathered.
    pub replies: Replies,
}

impl Message {
    /// `known` has what was prepared on the session before, by the text; what this message prepares is added.
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
                // Writing to a String cannot fail. The line ends what may be a comment.
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

/// The replies to a message, as they come in.
pub(super) struct Replies {
    gathered: Vec<Reply>,
    /// Which statement each further command of the message executes, for those that do.
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
