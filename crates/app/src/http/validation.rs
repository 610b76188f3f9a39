//! Validation: a body or a query that has the right shape and passes its rules, or a problem that names the field.
//!
//! Broken JSON is a 400, also that of more than 127 levels. An array in place of an object, a duplicate name, the wrong
//! type, an unknown or a missing field and a broken rule are a 422. No response repeats a value that was sent: it may
//! be a password.

use actix_web::http::header;
use actix_web::web::Bytes;
use actix_web::{FromRequest, HttpRequest, dev::Payload};
use chrono::{DateTime, Datelike, Utc};
use futures_util::future::LocalBoxFuture;
use serde::de::DeserializeOwned;
use serde_json::Value;
use validator::{Validate, ValidationErrors, ValidationErrorsKind};

use super::bodies::{self, BodyLimit, BodyReading};
use super::caller::user_of;
use super::objects;
use super::problem::{FieldProblem, Problem};

/// A JSON body that passed its rules, and its raw bytes (the fingerprint for an idempotency key needs them).
pub struct ValidBody<T> {
    pub body: T,
    pub bytes: Bytes,
}

impl<T: DeserializeOwned + Validate + 'static> FromRequest for ValidBody<T> {
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let declared = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let is_json =
            declared.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move {
            if !is_json {
                return Err(bodies::not_json().into());
            }
            let limit = request.app_data::<BodyLimit>().map_or(0, |limit| limit.0);
            let reading = BodyReading { limit, caller: user_of(&request), copies: 1 };
            let bytes = bodies::read(request, payload, reading).await?;
            let body = parse(&bytes)?;
            Ok(Self { body, bytes })
        })
    }
}

/// Parses JSON to `T`, and checks the rules of `T`.
pub fn parse<T: DeserializeOwned + Validate>(bytes: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let body: T = match serde_path_to_error::deserialize(objects::ObjectOnly(&mut json)) {
        Ok(body) => body,
        Err(error) => return Err(misshapen(&error.path().to_string(), error.inner())),
    };
    if json.end().is_err() {
        return Err(Problem::malformed("The body goes on after the end of its JSON."));
    }
    if let Some(field) = field_with_nul(bytes) {
        return Err(Problem::invalid_field(field, "holds the character U+0000, which no text may"));
    }
    check(&body)?;
    Ok(body)
}

/// Checks the rules of a type; a problem if they are broken.
pub fn check(input: &impl Validate) -> Result<(), Problem> {
    input.validate().map_err(|broken| {
        let mut errors = Vec::new();
        collect("", &broken, &mut errors);
        errors.sort_by(|one, other| one.field.cmp(&other.field));
        Problem::invalid(errors)
    })
}

/// serde's error about a wrong shape as a problem, without the value: serde's texts quote what was sent.
fn misshapen(path: &str, error: &serde_json::Error) -> Problem {
    if !error.is_data() {
        return Problem::malformed(format!(
            "The body is not JSON: see line {}, column {}.",
            error.line(),
            error.column()
        ));
    }
    let message = error.to_string();
    let named = message.split('`').nth(1).map(|name| name.chars().take(64).collect::<String>());
    let joined = |name: String| if path == "." { name } else { format!("{path}.{name}") };
    match named {
        // serde's path ends at the unknown field if serde knows it, and otherwise at its parent.
        Some(name) if message.starts_with("unknown field") => {
            let field = if path.ends_with(&name) { path.to_owned() } else { joined(name) };
            Problem::invalid_field(field, "is not a field of this request")
        }
        Some(name) if message.starts_with("missing field") => Problem::invalid_field(joined(name), "is missing"),
        Some(name) if message.starts_with("duplicate field") => {
            let field = if path.ends_with(&name) { path.to_owned() } else { joined(name) };
            Problem::invalid_field(field, "is given more than once")
        }
        _ if path == "." => Problem::invalid_field("body", "is not a JSON object of this request"),
        _ => Problem::invalid_field(path, "has the wrong type or is not one of the allowed values"),
    }
}

/// The path of the first text with U+0000 in it. The body is parsed a second time only if it may have one.
fn field_with_nul(bytes: &[u8]) -> Option<String> {
    let suspicious = bytes.windows(6).any(|window| window == b"\\u0000");
    if !suspicious {
        return None;
    }
    find_nul("", &serde_json::from_slice(bytes).ok()?)
}

fn find_nul(path: &str, value: &Value) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then(|| path.to_owned()),
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(index, item)| find_nul(&format!("{path}[{index}]"), item))
        }
        Value::Object(fields) => {
            fields.iter().find_map(|(name, item)| find_nul(&under(path, &name.replace('\0', "?")), item))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

fn under(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn collect(path: &str, broken: &ValidationErrors, errors: &mut Vec<FieldProblem>) {
    for (field, kind) in broken.errors() {
        let path = under(path, field);
        match kind {
            ValidationErrorsKind::Field(rules) => {
                for rule in rules {
                    let detail = rule.message.as_ref().map_or_else(|| default_text(rule), ToString::to_string);
                    errors.push(FieldProblem { field: path.clone(), detail });
                }
            }
            ValidationErrorsKind::Struct(inner) => collect(&path, inner, errors),
            ValidationErrorsKind::List(items) => {
                for (index, inner) in items {
                    collect(&format!("{path}[{index}]"), inner, errors);
                }
            }
        }
    }
}

/// A text for the library's rules that have none: their parameters have the bounds, and also the rejected value, which
/// is left out.
fn default_text(rule: &validator::ValidationError) -> String {
    let bound = |name: &str| rule.params.get(name).map(ToString::to_string);
    match (rule.code.as_ref(), bound("min"), bound("max")) {
        ("length", Some(min), Some(max)) => format!("has {min} to {max} characters"),
        ("length", None, Some(max)) => format!("has at most {max} characters"),
        ("length", Some(min), None) => format!("has at least {min} characters"),
        ("range", Some(min), Some(max)) => format!("is between {min} and {max}"),
        ("range", Some(min), None) => format!("is at least {min}"),
        ("range", None, Some(max)) => format!("is at most {max}"),
        ("email", ..) => "is not an e-mail address".to_owned(),
        (code, ..) => format!("breaks the rule `{code}`"),
    }
}

/// A query string that passed its rules.
pub struct ValidQuery<T>(pub T);

impl<T: DeserializeOwned + Validate + 'static> FromRequest for ValidQuery<T> {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(parse_query(request.query_string()).map(Self))
    }
}

fn parse_query<T: DeserializeOwned + Validate>(query: &str) -> Result<T, Problem> {
    let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
    let input: T = serde_path_to_error::deserialize(pairs).map_err(|error| {
        let message = error.inner().to_string();
        let named = message.split('`').nth(1).map(|name| name.chars().take(64).collect::<String>());
        match (named, error.path().to_string()) {
            (Some(name), _) if message.starts_with("unknown field") => {
                Problem::invalid_field(name, "is not a parameter of this route")
            }
            (Some(name), _) if message.starts_with("missing field") => Problem::invalid_field(name, "is missing"),
            (_, path) if path != "." => {
                Problem::invalid_field(path, "has the wrong type or is not one of the allowed values")
            }
            _ => Problem::invalid_field("query", "has a parameter of the wrong type"),
        }
    })?;
    if query.contains("%00") {
        return Err(Problem::invalid_field("query", "holds the character U+0000, which no text may"));
    }
    check(&input)?;
    Ok(input)
}

/// For a field where null differs from absence: `Some(None)` is null, `None` is absence.
pub fn present<'de, T: serde::Deserialize<'de>, D: serde::Deserializer<'de>>(
    input: D,
) -> Result<Option<Option<T>>, D::Error> {
    serde::Deserialize::deserialize(input).map(Some)
}

/// A whole number, also if it is written as 5.0: in JSON the two are equal.
pub fn whole<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<i64>, D::Error> {
    let Some(number) = <Option<serde_json::Number> as serde::Deserialize>::deserialize(input)? else { return Ok(None) };
    let whole = number.as_i64().or_else(|| {
        let text = number.to_string();
        text.strip_suffix(".0").and_then(|digits| digits.parse().ok())
    });
    whole.map(Some).ok_or_else(|| serde::de::Error::custom("not a whole number within 64 bits"))
}

/// The same for a field that must be present and not null.
pub fn whole_number<'de, D: serde::Deserializer<'de>>(input: D) -> Result<i64, D::Error> {
    whole(input)?.ok_or_else(|| serde::de::Error::custom("not a whole number within 64 bits"))
}

/// For names and other one-line texts: not blank, no control characters.
pub fn one_line(text: &str) -> Result<(), validator::ValidationError> {
    let rule = |message: &'static str| Err(validator::ValidationError::new("one_line").with_message(message.into()));
    if text.trim().is_empty() {
        return rule("must not be blank");
    }
    if text.chars().any(char::is_control) { rule("must not hold control characters") } else { Ok(()) }
}

/// For times: in the years that RFC 3339 can express and the database can store.
pub fn in_calendar(time: &DateTime<Utc>) -> Result<(), validator::ValidationError> {
    let rule =
        || validator::ValidationError::new("in_calendar").with_message("lies outside the years 1 to 9999".into());
    if (1..=9999).contains(&time.year()) { Ok(()) } else { Err(rule()) }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, Validate)]
    #[serde(deny_unknown_fields)]
    struct Input {
        #[validate(length(min = 2, max = 5), custom(function = "one_line"))]
        name: String,
        #[serde(default)]
        #[validate(range(min = 0))]
        limit: Option<i64>,
        #[serde(default)]
        #[validate(nested)]
        inner: Vec<Inner>,
    }

    #[derive(Debug, Deserialize, Validate)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[validate(length(max = 1))]
        tag: String,
    }

    fn refused(body: &str) -> (u16, String) {
        let problem = parse::<Input>(body.as_bytes()).unwrap_err();
        (problem.status.as_u16(), problem.detail)
    }

    #[test]
    fn each_fault_names_its_field_and_no_value() {
        for (body, status, said) in [
            ("{", 400, "not JSON"),
            ("", 400, "not JSON"),
            (r#"{"name":"abc"} x"#, 400, "after the end"),
            ("[]", 422, "`body`"),
            (r#"["abc",1,[]]"#, 422, "`body`"),
            (r#"{"name":"abc","inner":[["a"]]}"#, 422, "`inner[0]`"),
            (r#"{"name":"abc","name":"abd"}"#, 422, "`name` is given more than once"),
            ("{}", 422, "`name` is missing"),
            (r#"{"name":1234567}"#, 422, "`name` has the wrong type"),
            (r#"{"name":"abc","role":"admin"}"#, 422, "`role` is not a field"),
            (r#"{"name":"a"}"#, 422, "`name` has 2 to 5 characters"),
            (r#"{"name":"   "}"#, 422, "`name` must not be blank"),
            (r#"{"name":"a\u0000b"}"#, 422, "`name` holds the character U+0000"),
            (r#"{"name":"abc","limit":-1}"#, 422, "`limit` is at least 0"),
            (r#"{"name":"abc","limit":1.5}"#, 422, "`limit` has the wrong type"),
            (r#"{"name":"abc","inner":[{"tag":"a"},{"tag":"toolong"}]}"#, 422, "`inner[1].tag`"),
            (r#"{"name":"abc","inner":[{"tag":"a","x":1}]}"#, 422, "inner[0].x`"),
        ] {
            let (got, detail) = refused(body);
            assert_eq!(got, status, "{body}: {detail}");
            assert!(detail.contains(said), "{body}: {detail}");
            assert!(!detail.contains("toolong") && !detail.contains("1234567"), "{detail}");
        }
        assert!(parse::<Input>(br#"{"name":"abc","limit":0}"#).is_ok());
    }

    #[derive(Debug, Deserialize, Validate)]
    #[serde(deny_unknown_fields)]
    struct Query {
        #[validate(range(min = 1, max = 100))]
        limit: Option<u8>,
    }

    #[test]
    fn a_query_is_held_to_its_rules_too() {
        for (query, said) in
            [("limit=x", "limit"), ("limit=0", "`limit` is between 1 and 100"), ("page=1", "`page` is not a parameter")]
        {
            let problem = parse_query::<Query>(query).unwrap_err();
            assert_eq!(problem.status.as_u16(), 422, "{query}");
            assert!(problem.detail.contains(said), "{query}: {}", problem.detail);
        }
        assert!(parse_query::<Query>("limit=1").is_ok());
    }
}
