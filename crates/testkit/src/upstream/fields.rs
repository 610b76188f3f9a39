//! JSON written in the order in which the providers write it, which the map of `serde_json` does not keep.

use serde_json::Value;

/// A JSON string.
pub fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// `,"name":value` for each that is there: fields that a provider leaves out when there is nothing to say.
pub fn optional(fields: &[(&str, Option<String>)]) -> String {
    let said = fields.iter().filter_map(|(name, value)| value.as_ref().map(|value| format!(r#","{name}":{value}"#)));
    said.collect()
}

/// The number, where it is not 0.
pub fn unless_zero(number: u64) -> Option<String> {
    (number > 0).then(|| number.to_string())
}
