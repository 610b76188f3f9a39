//! Writes JSON in the order of the providers' fields, which the map of `serde_json` does not keep.

use serde_json::Value;

/// A JSON string.
pub fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// `,"name":value` for each value that is present: fields that a provider omits when they are empty.
pub fn optional(fields: &[(&str, Option<String>)]) -> String {
    let said = fields.iter().filter_map(|(name, value)| value.as_ref().map(|value| format!(r#","{name}":{value}"#)));
    said.collect()
}

/// The number, unless it is 0.
pub fn unless_zero(number: u64) -> Option<String> {
    (number > 0).then(|| number.to_string())
}
