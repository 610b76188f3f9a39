//! Array literals: writes the columns of a batch as text, for messages with more than one statement.
//!
//! The simple protocol takes several statements in one message but no parameters, so values are written out. Only
//! arrays of the four element kinds that batches use are supported. Each is one literal, which Postgres parses in
//! linear time. Texts may contain anything but U+0000, which Postgres texts cannot contain.

use std::fmt::Write;
use std::ops::Range;

use chrono::{DateTime, SecondsFormat, Utc};
use sea_orm::Value;
use uuid::fmt::Hyphenated;

/// The text around the items of an array, and the longest item that is an id, a number or a time.
const EMPTY_LENGTH: usize = 8;
const ITEM_LENGTH: usize = Hyphenated::LENGTH + 1;

/// Writes the values as the arguments of EXECUTE. `None` if one of them cannot be written.
pub(super) fn arguments(values: &[Value]) -> Option<String> {
    let items = values.iter().map(|value| if let Value::Array(_, Some(items)) = value { items.len() } else { 0 });
    // Without a capacity, a large text would be copied a dozen times while it grows.
    let mut text = String::with_capacity(values.len() * EMPTY_LENGTH + items.sum::<usize>() * ITEM_LENGTH);
    for (place, value) in values.iter().enumerate() {
        text.push_str(if place == 0 { "(" } else { "," });
        let Value::Array(_, Some(items)) = value else { return None };
        text.push_str("E'{");
        // A batch has few different periods, and formatting a time takes longer than the rest of its row.
        let mut last: Option<(DateTime<Utc>, Range<usize>)> = None;
        for (place, item) in items.iter().enumerate() {
            if place > 0 {
                text.push(',');
            }
            if let Value::ChronoDateTimeUtc(Some(time)) = item {
                let begin = text.len();
                match &last {
                    Some((same, written)) if same == time => text.extend_from_within(written.clone()),
                    _ => write_time(&mut text, time),
                }
                last = Some((*time, begin..text.len()));
                continue;
            }
            write_item(&mut text, item)?;
        }
        text.push_str("}'");
    }
    text.push_str(if values.is_empty() { "" } else { ")" });
    Some(text)
}

fn write_item(text: &mut String, item: &Value) -> Option<()> {
    match item {
        Value::Uuid(Some(id)) => {
            text.push_str(id.hyphenated().encode_lower(&mut [0; Hyphenated::LENGTH]));
        }
        Value::BigInt(Some(number)) => write!(text, "{number}").ok()?,
        Value::String(Some(word)) => write_word(text, word)?,
        _ => return None,
    }
    Some(())
}

/// To the microsecond, the precision of Postgres.
fn write_time(text: &mut String, time: &DateTime<Utc>) {
    if *time == DateTime::UNIX_EPOCH {
        text.push_str("epoch");
        return;
    }
    text.push('"');
    text.push_str(&time.to_rfc3339_opts(SecondsFormat::Micros, true));
    text.push('"');
}

/// Quoted for the array, and escaped again for the literal around it, whose E form treats a backslash as the start of
/// an escape.
fn write_word(text: &mut String, word: &str) -> Option<()> {
    text.push('"');
    for character in word.chars() {
        match character {
            '\0' => return None,
            '\\' => text.push_str(r"\\\\"),
            '"' => text.push_str(r#"\\""#),
            '\'' => text.push_str("''"),
            other => text.push(other),
        }
    }
    text.push('"');
    Some(())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_text_cannot_leave_its_quotes() {
        let words = vec!["it's".to_owned(), r#"\"; DROP TABLE users; --"#.to_owned(), "null".to_owned(), String::new()];
        let written = arguments(&[words.into()]).unwrap();
        assert_eq!(written, r#"(E'{"it''s","\\\\\\"; DROP TABLE users; --","null",""}')"#);
        assert_eq!(arguments(&[vec!["a\0b".to_owned()].into()]), None);
    }

    #[test]
    fn columns_are_written_side_by_side_and_single_values_not_at_all() {
        let time = DateTime::from_timestamp_micros(1_700_000_000_000_001).unwrap();
        let values = [vec![Uuid::nil()].into(), vec![-1_i64, 2].into(), vec![time, time, DateTime::UNIX_EPOCH].into()];
        let written = arguments(&values).unwrap();
        let expected = "(E'{00000000-0000-0000-0000-000000000000}',E'{-1,2}',E'{\"2023-11-14T22:13:20.000001Z\",\"2023-11-14T22:13:20.000001Z\",epoch}')";
        assert_eq!(written, expected);
        assert_eq!(arguments(&[1_i64.into()]), None);
        assert_eq!(arguments(&[vec![sea_orm::prelude::Decimal::ONE].into()]), None);
        assert_eq!(arguments(&[Vec::<i64>::new().into()]).as_deref(), Some("(E'{}')"));
    }
}
