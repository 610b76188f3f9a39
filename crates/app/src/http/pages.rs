//! Pages: `?limit=&cursor=` in, `{ "data": [..], "next_cursor": .. }` out.
//!
//! A cursor is the position of the last row that was shown (its time and id), so the index finds the next page, which
//! neither repeats nor skips rows when others are added meanwhile.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use validator::Validate;

use super::problem::Problem;

/// How many rows a page has by default.
const DEFAULT_LIMIT: u64 = 20;

/// A position in a list that is ordered by time and id.
pub type PagePosition = (DateTime<Utc>, Uuid);

#[derive(Debug, Default, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// How many rows to show; 20 by default.
    #[validate(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<u64>,
    /// `next_cursor` of the previous page.
    #[validate(length(max = 100))]
    #[param(pattern = r"^[0-9]{1,16}_[0-9a-f]{32}$")]
    pub cursor: Option<String>,
}

impl PageQuery {
    /// The rows to read: one more than is shown, to see whether there is a next page.
    pub fn rows(&self) -> u64 {
        self.shown() + 1
    }

    pub fn after(&self) -> Result<Option<PagePosition>, Problem> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let unknown =
            || Problem::invalid_field("cursor", "is not one that this service gave; take `next_cursor` as it is");
        let (micros, id) = cursor.split_once('_').ok_or_else(unknown)?;
        let micros = Some(micros).filter(|digits| digits.len() <= 16).and_then(|digits| digits.parse::<u64>().ok());
        let micros = micros.and_then(|micros| i64::try_from(micros).ok()).ok_or_else(unknown)?;
        let at = DateTime::from_timestamp_micros(micros).ok_or_else(unknown)?;
        let id = Uuid::try_parse(id).map_err(|_| unknown())?;
        Ok(Some((at, id)))
    }

    /// Builds the page from the rows that were read.
    pub fn page<R, V>(&self, rows: &[R], position: impl Fn(&R) -> PagePosition, view: impl Fn(&R) -> V) -> PageView<V> {
        let shown = usize::try_from(self.shown()).unwrap_or(usize::MAX).min(rows.len());
        let (page, rest) = rows.split_at(shown);
        let next_cursor = page.last().filter(|_| !rest.is_empty()).map(|last| {
            let (at, id) = position(last);
            format!("{}_{}", at.timestamp_micros(), id.simple())
        });
        PageView { data: page.iter().map(view).collect(), next_cursor }
    }

    fn shown(&self) -> u64 {
        self.limit.unwrap_or(DEFAULT_LIMIT)
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct PageView<V> {
    pub data: Vec<V>,
    /// Send it as `cursor` for the next page; null on the last one.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
}

/// A list that is always complete.
#[derive(Debug, Serialize, ToSchema)]
pub struct ListView<V> {
    pub data: Vec<V>,
    /// Always null: the list is complete.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
}

impl<V> ListView<V> {
    pub const fn whole(data: Vec<V>) -> Self {
        Self { data, next_cursor: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_to_the_row_after_it() {
        let query = PageQuery { limit: Some(2), cursor: None };
        let rows: Vec<PagePosition> = (1..=3)
            .map(|n| (DateTime::from_timestamp_micros(n).unwrap(), Uuid::from_u128(n.cast_unsigned().into())))
            .collect();
        let page = query.page(&rows, |row| *row, |row| row.1);
        assert_eq!(page.data.len(), 2);
        let next = PageQuery { limit: Some(2), cursor: page.next_cursor };
        assert_eq!(next.after().unwrap(), Some(rows[1]));
        let last = query.page(&rows[..2], |row| *row, |row| row.1);
        assert_eq!(last.next_cursor, None);
    }

    #[test]
    fn a_cursor_of_ones_own_making_is_refused() {
        for cursor in [
            "",
            "x",
            "1_x",
            "1_00000000-0000-0000-0000-00000000000g",
            "99999999999999999999_00000000000000000000000000000000",
        ] {
            let query = PageQuery { limit: None, cursor: Some(cursor.to_owned()) };
            assert_eq!(query.after().unwrap_err().status.as_u16(), 422, "{cursor}");
        }
    }
}
