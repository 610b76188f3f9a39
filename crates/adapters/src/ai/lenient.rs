//! Lenient reading: a field of the expected kind is read, any other counts as absent.
//!
//! Of a member that comes twice in an object, both count as far as they can: see `merged`.
//!
//! Replies are read for billing and translation. A field whose kind has changed must not end a reply, so reading fails
//! only where the text is not JSON. It costs a second pass over each field that is read.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use self::merged::Merged;
use crate::json_repair::repaired;

mod merged;

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

/// Members with encoded data, such as a picture or sound.
const ENCODED: [&str; 2] = ["data", "b64_json"];

/// A token of output for each so many characters of encoded data. Our own figure: OpenAI bills a picture of 1.5 MB as
/// 1,000 to 6,000 tokens, and a second of sound, 64 kB, as 20.
const ENCODED_PER_TOKEN: usize = 1_024;

/// A token of output for each so many characters of encrypted thinking. Our own figure: a token of text is about four
/// characters, and base64 writes four for three.
const ENCRYPTED_PER_TOKEN: usize = 6;

/// The output in a JSON value of an unknown shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Output {
    pub text: String,
    /// For what is no text: an estimate by its size.
    pub hidden_tokens: u64,
}

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

/// The object rewritten for every reader: readable text, and each member once.
fn respelled(data: &[u8]) -> Option<String> {
    let Merged(value) = serde_json::from_str(&repaired(data)).ok()?;
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

/// Whether an object can be read as it is written. A value that is no object counts as absent anyway.
pub(super) fn is_readable<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> bool {
    !is_object(raw.get().as_bytes()) || read::<T>(Some(raw)).is_some()
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
        Some(b'[' | b'{') => Some(output_within(json.as_bytes()).text).filter(|text| !text.is_empty()),
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

/// The output in a JSON value: all text except that of the members in `NAMES`, and encoded data by its size. A value of
/// an unknown shape is billed by it.
pub(super) fn output_within(json: &[u8]) -> Output {
    let mut output = Output::default();
    if let Some(value) = parsed(json) {
        output.add(&value);
    }
    output
}

/// The output in the members of an object that are not among the known ones.
pub(super) fn output_beside(raw: &RawValue, known: &[&str]) -> Output {
    let members: BTreeMap<String, Value> = parsed(raw.get().as_bytes()).unwrap_or_default();
    let mut output = Output::default();
    for (name, member) in members.iter().filter(|(name, _)| !known.contains(&name.as_str())) {
        output.add_member(name, member);
    }
    output
}

/// The tokens that encrypted thinking of this length stands for.
pub(super) fn encrypted_tokens(length: usize) -> u64 {
    length.div_ceil(ENCRYPTED_PER_TOKEN) as u64
}

impl Output {
    fn add(&mut self, value: &Value) {
        match value {
            Value::String(text) if text.starts_with("data:") => self.add_encoded(text),
            Value::String(text) => self.text.push_str(text),
            Value::Array(items) => items.iter().for_each(|item| self.add(item)),
            Value::Object(members) => members.iter().for_each(|(name, member)| self.add_member(name, member)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn add_member(&mut self, name: &str, member: &Value) {
        match member {
            _ if NAMES.contains(&name) => {}
            Value::String(data) if ENCODED.contains(&name) => self.add_encoded(data),
            member => self.add(member),
        }
    }

    fn add_encoded(&mut self, data: &str) {
        self.hidden_tokens = self.hidden_tokens.saturating_add(data.len().div_ceil(ENCODED_PER_TOKEN) as u64);
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
    fn output_is_all_text_without_names_and_encoded_data_by_its_size() {
        let of = |text: &str, hidden_tokens| Output { text: text.to_owned(), hidden_tokens };
        assert_eq!(output_within(br#"{"type":"x","a":["b",{"c":"d","id":"no"}],"n":1}"#), of("bd", 0));
        assert_eq!((output_within(b"{}"), output_within(b"no json")), (Output::default(), Output::default()));
        let picture =
            format!(r#"{{"a":{{"url":"data:image/png;base64,{0}"}},"data":"{0}","t":"x"}}"#, "A".repeat(2_000));
        assert_eq!(output_within(picture.as_bytes()), of("x", 4));
        let raw =
            RawValue::from_string(r#"{"content":"known","audio":{"data":"AA","transcript":"said"}}"#.into()).unwrap();
        assert_eq!(output_beside(&raw, &["content"]), of("said", 1));
        assert_eq!((encrypted_tokens(0), encrypted_tokens(1), encrypted_tokens(600)), (0, 1, 100));
    }

    #[test]
    fn of_a_member_that_comes_twice_no_report_is_lost() {
        for (json, expected) in [
            (r#"{"usage":{"a":9,"c":"x"},"usage":{"a":0,"b":2}}"#, r#"{"usage":{"a":9,"b":2,"c":"x"}}"#),
            (r#"{"usage":{"a":9},"usage":null}"#, r#"{"usage":{"a":9}}"#),
            (r#"{"usage":null,"usage":{"a":9}}"#, r#"{"usage":{"a":9}}"#),
            (r#"{"m":{"usage":{"a":1}},"m":{"usage":{"a":2.5}}}"#, r#"{"m":{"usage":{"a":2.5}}}"#),
            (r#"{"id":"first","id":"last","list":[1],"list":[2]}"#, r#"{"id":"last","list":[2]}"#),
            (r#"{"a":-5,"a":-7,"b":18446744073709551615,"b":1}"#, r#"{"a":-5,"b":18446744073709551615}"#),
        ] {
            let read: Option<Value> = object(json.as_bytes(), |text| {
                let twice = json.as_bytes() == text;
                if twice { None } else { serde_json::from_slice(text).ok() }
            });
            assert_eq!(read.unwrap(), serde_json::from_str::<Value>(expected).unwrap(), "{json}");
        }
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
