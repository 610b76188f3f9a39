//! Request summary: what the gateway has to know of a request: the model, the bounds, the form of the answer.
//! Everything else in it is passed on unchanged.
//!
//! Read leniently: the provider refuses what it does not understand, in its own words. For a bound that is not
//! understood, as much is reserved as the model may generate.

use std::collections::HashSet;
use std::fmt;

use domain::ai::{Geo, TOKENS_MAX, Tier};
use ports::ai::StreamFraming;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use actix_web::http::StatusCode;
use adapters::json_repair::repaired;

use crate::http::problem::{FieldProblem, Problem};

/// One field of a request in a dialect is wrong: a 400 with the field's name and never its value.
pub fn refused(field: impl Into<String>, why: impl Into<String>) -> Problem {
    let (field, detail) = (field.into(), why.into());
    let told = Problem::new(StatusCode::BAD_REQUEST, "invalid", format!("`{field}` {detail}."));
    let errors = serde_json::to_value([FieldProblem { field, detail }]).unwrap_or_default();
    told.with_field("errors", errors)
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputForm {
    Whole,
    Stream(StreamFraming),
}

#[derive(Clone, Debug, PartialEq)]
pub struct RequestSummary {
    pub model: String,
    pub form: OutputForm,
    /// For a stream in `OpenAI`'s dialect: whether it ends with the usage.
    pub include_usage: bool,
    /// The most tokens that each answer may have.
    pub max_output_tokens: Option<u64>,
    pub answers: u64,
    pub tier: Tier,
    /// The region in which the provider is to run the call.
    pub geo: Geo,
}

/// Members whose content is not looked into for keys that come twice: nothing that is reserved for depends on those keys.
const CONTENT: [&str; 7] =
    ["messages", "contents", "system", "systemInstruction", "system_instruction", "input", "content"];

/// The first key that an object has twice, at the top or in what sets bounds, tools and forms. Providers do not agree on which
/// of two holds, so what is reserved could be for the other one.
struct RepeatedKey {
    is_top: bool,
}

impl<'de> DeserializeSeed<'de> for RepeatedKey {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RepeatedKey {
    type Value = Option<String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let (mut keys, mut repeated) = (HashSet::new(), None);
        while let Some(key) = entries.next_key::<String>()? {
            if self.is_top && CONTENT.contains(&key.as_str()) {
                entries.next_value::<IgnoredAny>()?;
            } else {
                let within = entries.next_value_seed(Self { is_top: false })?;
                repeated = repeated.or(within);
            }
            if let Some(twice) = keys.replace(key) {
                repeated = repeated.or(Some(twice));
            }
        }
        Ok(repeated)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut repeated = None;
        while let Some(within) = items.next_element_seed(Self { is_top: false })? {
            repeated = repeated.or(within);
        }
        Ok(repeated)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

fn check_repeated(text: &str) -> Result<(), Problem> {
    let found = RepeatedKey { is_top: true }.deserialize(&mut serde_json::Deserializer::from_str(text));
    match found.ok().flatten() {
        Some(key) if key.len() <= KEY_SHOWN_MAX => Err(refused(key, "is there twice")),
        Some(_) => Err(Problem::malformed("A key of the body is there twice.")),
        None => Ok(()),
    }
}

/// A longer key is not repeated to the caller.
const KEY_SHOWN_MAX: usize = 64;

/// The body as a JSON object. Half of a surrogate pair is read as U+FFFD, and is passed on as it came.
pub fn object(text: &str) -> Result<Value, Problem> {
    let strict = serde_json::from_str(text);
    match strict.or_else(|error| serde_json::from_str(&repaired(text.as_bytes())).map_err(|_| error)) {
        Ok(body @ Value::Object(_)) => check_repeated(text).map(|()| body),
        Ok(_) => Err(Problem::malformed("The body is not a JSON object.")),
        Err(error) => {
            let place = (error.line(), error.column());
            Err(Problem::malformed(format!("The body is not JSON: see line {}, column {}.", place.0, place.1)))
        }
    }
}

/// A field that is present and not null.
pub fn present<'a>(body: &'a Value, name: &str) -> Option<&'a Value> {
    body.get(name).filter(|value| !value.is_null())
}

pub fn model(body: &Value) -> Result<String, Problem> {
    let name = present(body, "model").ok_or_else(|| refused("model", "is missing"))?;
    let name = name.as_str().filter(|name| !name.is_empty());
    name.map(str::to_owned).ok_or_else(|| refused("model", "is the name of a model, as text"))
}

/// Whether a field is `true`; every other value counts as false.
pub fn says_true(body: &Value, name: &str) -> bool {
    body.get(name) == Some(&Value::Bool(true))
}

/// A number of tokens or of answers; a fraction is rounded up. `None` if it is not a number from 0 on: the bound is
/// unknown then.
pub fn bound(value: Option<&Value>) -> Option<u64> {
    let whole = match value? {
        Value::Number(number) => number.as_u64().or_else(|| number.as_f64().and_then(rounded_up)),
        // Google accepts numbers as text, and others may.
        Value::String(text) => text.trim().parse().ok().or_else(|| text.trim().parse().ok().and_then(rounded_up)),
        _ => None,
    };
    whole.map(|bound| bound.min(TOKENS_MAX))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is from 0 on, and cut at the most below"
)]
fn rounded_up(number: f64) -> Option<u64> {
    (number >= 0.0).then(|| number.ceil() as u64)
}

/// How many answers a provider gives at most: OpenAI's bound of `n`.
const ANSWERS_MAX: u64 = 128;

/// How many answers are asked for: one by default, and the most if the value is not understood.
pub fn answers(value: Option<&Value>) -> u64 {
    value.filter(|value| !value.is_null()).map_or(1, |value| bound(Some(value)).unwrap_or(ANSWERS_MAX).max(1))
}

/// A list that is not empty.
pub fn filled_list<'a>(body: &'a Value, name: &str) -> Result<&'a [Value], Problem> {
    let list = present(body, name).ok_or_else(|| refused(name, "is missing"))?;
    let list = list.as_array().ok_or_else(|| refused(name, "is a list"))?;
    if list.is_empty() { Err(refused(name, "is empty; a call has at least one message")) } else { Ok(list) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_bound_is_read_in_every_spelling_of_a_number() {
        for (value, expected) in [
            (json!(0), Some(0)),
            (json!(10), Some(10)),
            (json!(10.0), Some(10)),
            (json!(10.2), Some(11)),
            (json!(1e300), Some(TOKENS_MAX)),
            (json!(u64::MAX), Some(TOKENS_MAX)),
            (json!(-1), None),
            (json!(-0.5), None),
            (json!("10"), Some(10)),
            (json!(" 8.5"), Some(9)),
            (json!("many"), None),
            (json!([10]), None),
            (json!(null), None),
        ] {
            assert_eq!(bound(Some(&value)), expected, "{value}");
            let of_nothing = if value.is_null() { 1 } else { ANSWERS_MAX };
            assert_eq!(answers(Some(&value)), expected.unwrap_or(of_nothing).max(1), "{value}");
        }
        assert_eq!((bound(None), answers(None)), (None, 1));
    }

    #[test]
    fn a_key_that_the_reservation_rests_on_comes_once() {
        for twice in [
            r#"{"max_tokens":9,"max_tokens":1}"#,
            r#"{"max_tokens":9,"max\u005ftokens":1}"#,
            r#"{"generationConfig":{"candidateCount":9,"candidateCount":1}}"#,
            r#"{"tools":[{"max_uses":9,"max_uses":1}]}"#,
            r#"{"tools":[],"messages":[],"tools":[]}"#,
        ] {
            let refused = object(twice).unwrap_err();
            assert_eq!((refused.status.as_u16(), refused.code), (400, "invalid"), "{twice}");
        }
        let content = r#"{"messages":[{"content":[{"input":{"a":1,"a":2}}]}],"n":1}"#;
        assert!(object(content).is_ok(), "what a message holds is the provider's to judge");
    }

    #[test]
    fn half_of_a_character_is_no_reason_to_refuse_a_body() {
        assert_eq!(object(r#"{"a":"\ud83d"}"#).unwrap(), json!({ "a": "\u{fffd}" }));
        assert_eq!(object("{\n\"a\":}").unwrap_err().detail, "The body is not JSON: see line 2, column 5.");
        assert!(object("[]").is_err());
    }
}
