//! Converts Gemini's schemas to JSON Schema: its types are in capitals, and whether a value may be null is a field.

use serde_json::value::RawValue;

use crate::http::dialects::reading::OrderedValue;
use crate::http::dialects::rendering::quoted;

/// Fields whose values are data, not schemas.
const DATA: [&str; 4] = ["enum", "default", "example", "const"];

/// The schema as JSON Schema, with its fields in their order.
pub fn json_schema(schema: &str) -> String {
    if let Ok(OrderedValue(fields)) = serde_json::from_str(schema) {
        let may_be_null = fields.iter().any(|(name, value)| name == "nullable" && value.get() == "true");
        let kept = fields.iter().filter(|(name, _)| name != "nullable" && name != "propertyOrdering");
        let fields: Vec<String> =
            kept.map(|(name, value)| format!("{}:{}", quoted(name), field(name, value, may_be_null))).collect();
        return format!("{{{}}}", fields.join(","));
    }
    if let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(schema) {
        let items: Vec<String> = items.into_iter().map(|item| json_schema(item.get())).collect();
        return format!("[{}]", items.join(","));
    }
    schema.to_owned()
}

fn field(name: &str, value: &RawValue, may_be_null: bool) -> String {
    if DATA.contains(&name) {
        return value.get().to_owned();
    }
    match (name, serde_json::from_str::<String>(value.get())) {
        ("type", Ok(kind)) if may_be_null => format!(r#"[{},"null"]"#, quoted(&kind.to_lowercase())),
        ("type", Ok(kind)) => quoted(&kind.to_lowercase()),
        ("properties", _) => properties(value.get()),
        _ => json_schema(value.get()),
    }
}

/// The names of properties are the caller's, and may equal fields of a schema.
fn properties(properties: &str) -> String {
    let Ok(OrderedValue(fields)) = serde_json::from_str(properties) else { return properties.to_owned() };
    let fields: Vec<String> =
        fields.iter().map(|(name, schema)| format!("{}:{}", quoted(name), json_schema(schema.get()))).collect();
    format!("{{{}}}", fields.join(","))
}

#[cfg(test)]
mod tests {
    use super::json_schema;

    #[test]
    fn types_are_small_and_null_is_a_type() {
        let schema = r#"{"type":"OBJECT","properties":{"type":{"type":"STRING","enum":["OBJECT"]},"nullable":{"type":"INTEGER","nullable":true},"list":{"type":"ARRAY","items":{"type":"NUMBER"}}},"required":["type"],"propertyOrdering":["type"],"anyOf":[{"type":"NULL"}]}"#;
        let expected = r#"{"type":"object","properties":{"type":{"type":"string","enum":["OBJECT"]},"nullable":{"type":["integer","null"]},"list":{"type":"array","items":{"type":"number"}}},"required":["type"],"anyOf":[{"type":"null"}]}"#;
        assert_eq!(json_schema(schema), expected);
        assert_eq!(json_schema(expected), expected, "what is JSON Schema already stays");
    }
}
