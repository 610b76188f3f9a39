//! Columns: rows of a batch as arrays of columns, which each statement unnests.
//!
//! What is absent is written as a value that cannot occur (all zeros, -1, '', the epoch), which the statement turns into
//! NULL: sea-query-sqlx decodes an array to `Vec<T>` before it binds it, and panics on an element without a value.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use ports::store::{LockPatience, LockResult, StoreError};
use ports::usage::CounterKey;
use sea_orm::Value;
use uuid::Uuid;

/// The key columns of counters.
#[derive(Default)]
pub(super) struct CounterKeyColumns {
    users: Vec<Uuid>,
    features: Vec<String>,
    periods: Vec<String>,
    starts: Vec<DateTime<Utc>>,
}

impl CounterKeyColumns {
    pub(super) fn add(&mut self, key: &CounterKey) {
        self.users.push(key.meter.user_id.0);
        self.features.push(key.meter.feature_id.to_string());
        self.periods.push(key.period_kind.as_str().to_owned());
        self.starts.push(key.period_start);
    }

    pub(super) fn values(self) -> [Value; 4] {
        [self.users.into(), self.features.into(), self.periods.into(), self.starts.into()]
    }
}

/// One column of all rows.
pub(super) fn column<R, T>(rows: &[R], of: impl Fn(&R) -> T) -> Value
where
    Vec<T>: Into<Value>,
{
    rows.iter().map(of).collect::<Vec<_>>().into()
}

/// The statement that skips locked rows, or the one that waits for them.
pub(super) fn with_patience(sql: &str, patience: LockPatience) -> Cow<'_, str> {
    match patience {
        LockPatience::Skip => Cow::Borrowed(sql),
        LockPatience::Wait => Cow::Owned(sql.replace(" SKIP LOCKED", "")),
    }
}

/// A statement that locks rows returns one row for each that was asked for.
pub(super) fn same_number(answered: usize, asked: usize) -> Result<(), StoreError> {
    if answered == asked {
        return Ok(());
    }
    Err(StoreError::Unexpected(format!("a batch asked for {asked} rows and was answered with {answered}")))
}

/// How a row was found, by the two columns that every locking statement has.
pub(super) fn lock_result<T>(is_locked: bool, is_held: bool, row: impl FnOnce() -> T) -> LockResult<T> {
    match (is_locked, is_held) {
        (true, _) => LockResult::Locked(row()),
        (false, true) => LockResult::Busy,
        (false, false) => LockResult::Missing,
    }
}
