//! What a request asks for, as far as the gateway has to know it: the model, the bounds, how large it is. Everything else
//! in it goes on as it came.

use domain::ai::{TOKENS_MAX, Tier};
use ports::ai::Framing;
use serde_json::Value;

use actix_web::http::StatusCode;

use crate::http::problem::{FieldProblem, Problem};

/// One field of a request in a dialect is wrong: 400 there, with the field's name and never its value.
pub fn refused(field: impl Into<String>, why: impl Into<String>) -> Problem {
    let (field, detail) = (field.into(), why.into());
    let told = Problem::new(StatusCode::BAD_REQUEST, "invalid", format!("`{field}` {detail}."));
    let errors = serde_json::to_value([FieldProblem { field, detail }]).unwrap_or_default();
    told.with_field("errors", errors)
}

/// How an answer is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Whole,
    Stream(Framing),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub model: String,
    pub form: Form,
    /// Of a stream in `OpenAI`'s dialect: whether it ends with the usage.
    pub include_usage: bool,
    /// The most that each answer may have.
    pub max_output_tokens: Option<u64>,
    pub answers: u64,
    pub tier: Tier,
}

/// The body as a JSON object.
pub fn object(text: &str) -> Result<Value, Problem> {
    match serde_json::from_str(text) {
        Ok(body @ Value::Object(_)) => Ok(body),
        Ok(_) => Err(Problem::malformed("The body is not a JSON object.")),
        Err(error) => {
            let place = (error.line(), error.column());
            Err(Problem::malformed(format!("The body is not JSON: see line {}, column {}.", place.0, place.1)))
        }
    }
}

/// A field that may be absent or null.
pub fn present<'a>(body: &'a Value, name: &str) -> Option<&'a Value> {
    body.get(name).filter(|value| !value.is_null())
}

pub fn model(body: &Value) -> Result<String, Problem> {
    let name = present(body, "model").ok_or_else(|| refused("model", "is missing"))?;
    let name = name.as_str().filter(|name| !name.is_empty());
    name.map(str::to_owned).ok_or_else(|| refused("model", "is the name of a model, as text"))
}

pub fn flag(body: &Value, name: &str) -> Result<bool, Problem> {
    let value = present(body, name).map_or(Some(false), Value::as_bool);
    value.ok_or_else(|| refused(name, "is true or false"))
}

/// A whole number of tokens, at least 1. `field` is its path, for the refusal.
pub fn tokens(value: Option<&Value>, field: &str) -> Result<Option<u64>, Problem> {
    number(value, field, TOKENS_MAX)
}

/// A whole number from 1 to `most`.
pub fn number(value: Option<&Value>, field: &str, most: u64) -> Result<Option<u64>, Problem> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    let whole = value.as_u64().filter(|number| (1..=most).contains(number));
    whole.map(Some).ok_or_else(|| refused(field, format!("is a whole number from 1 to {most}")))
}

/// A list with something in it.
pub fn filled_list<'a>(body: &'a Value, name: &str) -> Result<&'a [Value], Problem> {
    let list = present(body, name).ok_or_else(|| refused(name, "is missing"))?;
    let list = list.as_array().ok_or_else(|| refused(name, "is a list"))?;
    if list.is_empty() { Err(refused(name, "is empty; a call has at least one message")) } else { Ok(list) }
}

/// Holds the role of each message to those that there are.
pub fn check_roles(messages: &[Value], name: &str, roles: &[&str], may_lack: bool) -> Result<(), Problem> {
    for (index, message) in messages.iter().enumerate() {
        if !message.is_object() {
            return Err(refused(format!("{name}[{index}]"), "is an object"));
        }
        let role = present(message, "role");
        let is_known = role.map_or(may_lack, |role| role.as_str().is_some_and(|role| roles.contains(&role)));
        if !is_known {
            return Err(refused(format!("{name}[{index}].role"), format!("is one of {}", roles.join(", "))));
        }
    }
    Ok(())
}
