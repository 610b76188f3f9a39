//! Lenient reading: a field of the expected kind is read, any other counts as absent.
//!
//! Replies are read for billing and translation. A field whose kind has changed must not end a reply, so reading fails
//! only where the text is not JSON. It costs a second pass over each field that is read.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::json_repair::repaired;

/// Members whose text is a name or an identifier, never output.
const NAMES: [&str; 12] = [
    "type",
    "object",
    "id",
    "role",
    "model",
    "name",
    "event",
    "signature",
    "encrypted_content",
    "thoughtSignature",
    "system_fingerprint",
    "service_tier",
];

/// Applies `read` to a JSON object as written, or else rewritten. `None` if it is no object or both attempts fail.
pub(super) fn object<R>(data: &[u8], mut read: impl FnMut(&[u8]) -> Option<R>) -> Option<R> {
    if !is_object(data) {
        return None;
    }
    read(data).or_else(|| read(respelled(data)?.as_bytes()))
}

/// Whether the text can be a JSON object. A list is not one, though serde could read a struct from it.
fn is_object(data: &[u8]) -> bool {
    data.trim_ascii_start().first() == Some(&b'{')
}

/// The object rewritten for every reader: readable text, and each member once, with its last value.
fn respelled(data: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_str(&repaired(data)).ok()?;
    value.is_object().then(|| value.to_string())
}

/// Parses the JSON, or else its repaired text where half of a character is missing.
fn parsed<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    serde_json::from_slice(json).ok().or_else(|| serde_json::from_str(&repaired(json)).ok())
}

/// The value, if it has this kind.
pub(super) fn read<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Option<T> {
    serde_json::from_str(raw?.get()).ok()
}

/// A field that counts as absent where it has another kind.
pub(super) fn field<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    let raw: &'de RawValue = Deserialize::deserialize(from)?;
    Ok(read(Some(raw)))
}

/// The items of the list that have this kind. Empty where the value is no list.
pub(super) fn items<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Vec<T> {
    let items: Vec<&'a RawValue> = read(raw).unwrap_or_default();
    items.into_iter().filter_map(|item| read(Some(item))).collect()
}

/// Text as it is, the joined texts of a list of parts, or what is readable where half of a character is missing.
pub(super) fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let raw: &'de RawValue = Deserialize::deserialize(from)?;
    Ok(text_of(raw))
}

pub(super) fn text_of(raw: &RawValue) -> Option<String> {
    let json = raw.get();
    match json.as_bytes().first() {
        Some(b'"') => parsed(json.as_bytes()),
        Some(b'[' | b'{') => Some(text_within(json.as_bytes())).filter(|text| !text.is_empty()),
        _ => None,
    }
}

/// A whole number, also where it is written as a fraction or as text.
pub(super) fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let value: Option<Value> = field(from)?;
    let number = match value {
        Some(Value::Number(number)) => number.as_u64().or_else(|| rounded(number.as_f64()?)),
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    Ok(number)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in the range of the number before")]
fn rounded(number: f64) -> Option<u64> {
    (0.0..=9e15).contains(&number).then(|| number.ceil() as u64)
}

/// All text in a JSON value except that of the members in `NAMES`. A value of an unknown shape is billed by it.
pub(super) fn text_within(json: &[u8]) -> String {
    let mut text = String::new();
    if let Some(value) = parsed(json) {
        gather(&value, &mut text);
    }
    text
}

fn gather(value: &Value, text: &mut String) {
    match value {
        Value::String(part) => text.push_str(part),
        Value::Array(items) => items.iter().for_each(|item| gather(item, text)),
        Value::Object(members) => {
            let said = members.iter().filter(|(name, _)| !NAMES.contains(&name.as_str()));
            said.for_each(|(_, member)| gather(member, text));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Whether a member `error` reports an error: `null`, `false`, 0 and empty values do not.
pub(super) fn is_error(raw: Option<&RawValue>) -> bool {
    raw.is_some_and(|raw| !matches!(raw.get(), "null" | "false" | "\"\"" | "{}" | "[]" | "0"))
}

/// A usage with numbers of unexpected kinds written as whole numbers: fractions are rounded up, numbers in text are
/// parsed.
pub(super) fn usage_with_numbers(raw: &RawValue) -> Option<Map<String, Value>> {
    let mut members: Map<String, Value> = serde_json::from_str(raw.get()).ok()?;
    members.values_mut().for_each(make_whole);
    Some(members)
}

fn make_whole(value: &mut Value) {
    match value {
        Value::Number(number) if number.as_i64().is_none() => {
            if let Some(whole) = number.as_f64().and_then(rounded) {
                *value = whole.into();
            }
        }
        Value::String(text) => {
            if let Ok(whole) = text.trim().parse::<i64>() {
                *value = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(make_whole),
        Value::Object(members) => members.values_mut().for_each(make_whole),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default)]
    struct Odd {
        #[serde(deserialize_with = "text")]
        said: Option<String>,
        #[serde(deserialize_with = "whole")]
        index: Option<u64>,
        #[serde(deserialize_with = "field")]
        flag: Option<bool>,
    }

    #[test]
    fn a_field_of_another_kind_counts_as_absent() {
        let odd = |json: &str| serde_json::from_str::<Odd>(json).unwrap();
        let all = Odd { said: Some("x".into()), index: Some(2), flag: Some(true) };
        assert_eq!(odd(r#"{"said":"x","index":2,"flag":true,"more":{}}"#), all);
        assert_eq!(odd(r#"{"said":[{"type":"text","text":"x"}],"index":2.0,"flag":true}"#), all);
        assert_eq!(odd(r#"{"said":"x","index":"2","flag":true}"#), all);
        assert_eq!(odd(r#"{"said":7,"index":-1,"flag":"yes"}"#), Odd::default());
        assert_eq!(odd(r#"{"said":null,"index":null,"flag":null}"#), Odd::default());
        assert_eq!(odd(r#"{"said":"\ud83d"}"#).said.as_deref(), Some("\u{fffd}"));
    }

    #[test]
    fn all_text_is_gathered_without_names() {
        assert_eq!(text_within(br#"{"type":"x","a":["b",{"c":"d","id":"no"}],"n":1}"#), "bd");
        assert_eq!((text_within(b"{}"), text_within(b"no json")), (String::new(), String::new()));
    }

    #[test]
    fn numbers_of_a_usage_are_read_in_every_spelling() {
        let raw = |json: &str| RawValue::from_string(json.to_owned()).unwrap();
        let read = usage_with_numbers(&raw(r#"{"a":10.0,"b":{"c":"7","d":1.2},"e":-3,"f":"x"}"#)).unwrap();
        assert_eq!(Value::Object(read), serde_json::json!({ "a": 10, "b": { "c": 7, "d": 2 }, "e": -3, "f": "x" }));
        assert_eq!(usage_with_numbers(&raw("[1]")), None);
    }

    #[test]
    fn an_empty_error_is_none() {
        for (json, expected) in [
            ("null", false),
            ("false", false),
            ("{}", false),
            ("\"\"", false),
            (r#"{"message":"m"}"#, true),
            ("\"overloaded\"", true),
        ] {
            let raw = RawValue::from_string(json.to_owned()).unwrap();
            assert_eq!(is_error(Some(&raw)), expected, "{json}");
        }
        assert!(!is_error(None));
    }
}
