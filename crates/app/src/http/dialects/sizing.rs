//! Sizing: the size of the input, measured before the call, so that the most that it can cost is reserved.
//!
//! Every byte of the body is counted, except what is proven to be a medium (`media`) at a place where its dialect has
//! media (`<dialect>/parts.rs`); `domain::ai::InputSize` has the rules by which text, media and input that we cannot
//! see are counted. So an unknown field makes a call more expensive, never cheaper.
//!
//! Costs one walk over the body, one copy of its text, and a count of at most 4 MiB of it, which takes 150 ms; a longer
//! text is counted by its bytes, and is more than any model accepts.

use domain::ai::{BYTES_A_TOKEN_HELD, Dialect, InputSize};
use serde_json::Value;

use self::media::FoundMedia;
use self::plain::PlainMedia;
use super::calls::TokenCount;
use super::{anthropic, gemini, openai};

pub mod media;
mod plain;
#[cfg(test)]
mod properties;

/// How many bytes of text the token counter gets at most.
const COUNTED_MAX: usize = 4 * 1_024 * 1_024;
/// Fields that refer to content elsewhere.
const REFERENCES: [&str; 8] = ["file_id", "fileId", "file_uri", "fileUri", "file_url", "url", "uri", "container"];

/// Measures a body: its raw text, and its parsed form.
pub fn weigh(dialect: Dialect, text: &str, body: &Value, count: TokenCount<'_>) -> InputSize {
    let mut found = FoundMedia::default();
    match dialect {
        Dialect::OpenAiChat => openai::parts::find(body, &mut found),
        Dialect::Anthropic => anthropic::parts::find(body, &mut found),
        Dialect::Gemini => gemini::parts::find(body, &mut found),
    }
    let FoundMedia { size, taken } = found;
    let plain = PlainMedia::of(text, taken);
    let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
    InputSize {
        text_tokens: counted(&plain.text, count),
        text_bytes: bytes.saturating_sub(plain.media_bytes),
        opaque_bytes: plain.opaque_bytes,
        digits: plain.digits,
        ..size
    }
}

fn counted(text: &str, count: TokenCount<'_>) -> u64 {
    let (first, rest) = text.split_at(text.floor_char_boundary(COUNTED_MAX.min(text.len())));
    let by_bytes = u64::try_from(rest.len()).unwrap_or(u64::MAX).div_ceil(BYTES_A_TOKEN_HELD);
    count(first).saturating_add(by_bytes)
}

/// Whether a part of an unknown kind refers to content elsewhere.
pub fn refers(part: &Value) -> bool {
    match part {
        Value::Object(fields) => fields
            .iter()
            .any(|(name, inner)| (REFERENCES.contains(&name.as_str()) && !inner.is_null()) || refers(inner)),
        Value::Array(items) => items.iter().any(refers),
        _ => false,
    }
}

/// The items of a field: of a list, or a single object, which some providers read as a list of one.
pub fn items<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    let field = value.get(name);
    let alone = field.filter(|field| field.is_object());
    field.and_then(Value::as_array).into_iter().flatten().chain(alone)
}

/// A field that is text.
pub fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str)
}

/// Whether a field is present and not null.
pub fn says(value: &Value, name: &str) -> bool {
    value.get(name).is_some_and(|value| !value.is_null())
}
