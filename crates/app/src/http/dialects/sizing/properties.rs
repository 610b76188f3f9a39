//! What must hold for the size of every body, in every dialect.

use domain::ai::{BYTES_A_TOKEN, BYTES_A_TOKEN_HELD, InputSize};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use domain::ai::Dialect::{Anthropic, Gemini, OpenAiChat};

const ALL: [Dialect; 3] = [OpenAiChat, Anthropic, Gemini];
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB";

fn words(text: &str) -> u64 {
    let is_between = |character: char| !character.is_alphanumeric();
    u64::try_from(text.split(is_between).filter(|word| !word.is_empty()).count()).unwrap()
}

fn weighed(dialect: Dialect, body: &str) -> InputSize {
    weigh(dialect, body, &serde_json::from_str(body).unwrap(), &words)
}

/// A message that has this value at some place.
fn within(dialect: Dialect, place: usize, value: &Value) -> Value {
    let part = |part: Value| match dialect {
        OpenAiChat | Anthropic => json!({ "model": "m", "messages": [{ "role": "user", "content": [part] }] }),
        Gemini => json!({ "contents": [{ "role": "user", "parts": [part] }] }),
    };
    match place {
        0 => part(json!({ "type": "tool_use", "id": "t", "name": "w", "input": value })),
        1 => part(json!({ "type": "image", "source": { "type": "base64", "data": value } })),
        2 => part(json!({ "type": "image_url", "image_url": { "url": value } })),
        3 => part(json!({ "inlineData": { "mimeType": "image/png", "data": value } })),
        4 => part(json!({ "type": "input_audio", "input_audio": { "data": value } })),
        5 => part(json!({ "type": "thinking", "signature": value })),
        6 => part(json!({ "type": "document", "source": { "type": "base64", "data": value } })),
        7 => part(json!({ "functionCall": { "name": "f", "args": value } })),
        8 => json!({ "system": value, "tools": [value], "unheard_of": value }),
        9 => value.clone(),
        _ => json!({ "messages": value, "contents": value }),
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        "[A-Za-z0-9+/]{0,40}={0,2}".prop_map(Value::from),
        Just(Value::from(format!("data:image/png;base64,{}", "word".repeat(40)))),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let names =
            prop_oneof![".{0,12}", Just("data".to_owned()), Just("type".to_owned()), Just("content".to_owned())];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((names, inner), 0..6).prop_map(|fields| Value::from(Map::from_iter(fields))),
        ]
    })
}

proptest! {
    /// No part of it is a proven medium, so every byte is counted.
    #[test]
    fn every_byte_of_any_json_is_weighed(value in any_json(), place in 0_usize..11, is_pretty: bool) {
        for dialect in ALL {
            let body = within(dialect, place, &value);
            let text = if is_pretty { serde_json::to_string_pretty(&body) } else { serde_json::to_string(&body) }.unwrap();
            let size = weigh(dialect, &text, &body, &words);
            let bytes = u64::try_from(text.len()).unwrap();
            prop_assert_eq!(size.text_bytes, bytes);
            prop_assert!(size.likely() >= bytes.div_ceil(BYTES_A_TOKEN));
            for is_openai in [true, false] {
                prop_assert!(size.most("m", is_openai) >= bytes.div_ceil(BYTES_A_TOKEN_HELD));
            }
        }
    }

    /// A picture leaves out its own bytes, and no others.
    #[test]
    fn a_medium_takes_off_itself_alone(value in any_json(), place in 0_usize..11, long in 0_usize..400) {
        let picture = format!("{PNG}{}", "AAAA".repeat(long));
        for dialect in ALL {
            let mut body = within(dialect, place, &value);
            let part = match dialect {
                OpenAiChat => json!({ "type": "image_url", "image_url": { "url": format!("data:image/png;base64,{picture}") } }),
                Anthropic => json!({ "type": "image", "source": { "type": "base64", "data": picture } }),
                Gemini => json!({ "inlineData": { "mimeType": "image/png", "data": picture } }),
            };
            let Some(fields) = body.as_object_mut() else { continue };
            let name = if dialect == Gemini { "contents" } else { "messages" };
            let list = if dialect == Gemini { "parts" } else { "content" };
            fields.insert(name.to_owned(), json!([{ "role": "user", list: [part, { "text": picture }] }]));
            let text = body.to_string();
            let size = weigh(dialect, &text, &body, &words);
            let without = text.len() - picture.len() - "data:image/png;base64,".len();
            prop_assert!(size.text_bytes >= u64::try_from(without).unwrap());
            prop_assert!(size.text_bytes <= u64::try_from(text.len() - picture.len()).unwrap());
            prop_assert!(size.images >= 1);
        }
    }
}

#[test]
fn text_counts_wherever_it_stands() {
    let many = "word ".repeat(2_000);
    for value in [
        json!({ "content": many }),
        json!({ "data": many }),
        json!({ many.clone(): 1 }),
        json!({ "id": many, "signature": many }),
        json!({ "rows": (1..2_000).collect::<Vec<_>>() }),
        json!({ "deep": { "deep": { "type": many } } }),
        Value::from(many.clone()),
    ] {
        for dialect in ALL {
            for place in 0..10 {
                let body = within(dialect, place, &value).to_string();
                let size = weighed(dialect, &body);
                assert!(size.text_tokens >= 1_900, "{dialect:?} {place}: {size:?}");
            }
        }
    }
}

#[test]
fn what_is_given_twice_and_what_is_escaped_counts() {
    let many = "word ".repeat(500);
    let twice = format!(r#"{{"messages":[{{"role":"user","content":"{many}"}}],"messages":[]}}"#);
    let escape = |text: String, unit: u16| text + &format!("\\u{unit:04x}");
    let escaped = many.encode_utf16().fold(String::new(), escape);
    let escaped = format!(r#"{{"messages":[{{"role":"user","content":"{escaped}"}}]}}"#);
    for body in [twice, escaped] {
        assert!(weighed(Anthropic, &body).text_tokens >= 500);
    }
}

#[test]
fn what_cannot_be_seen_is_unseen() {
    let openai = |part: Value| json!({ "messages": [{ "role": "user", "content": [part] }] });
    let claude = openai;
    let gemini = |part: Value| json!({ "contents": [{ "parts": [part] }] });
    for (dialect, body) in [
        (OpenAiChat, openai(json!({ "type": "image_url", "image_url": { "url": "https://example.com/a.png" } }))),
        (OpenAiChat, openai(json!({ "type": "file", "file": { "file_id": "f" } }))),
        (OpenAiChat, openai(json!({ "type": "unheard_of", "file_id": "f" }))),
        (OpenAiChat, json!({ "messages": [{ "role": "assistant", "audio": { "id": "a" } }] })),
        (OpenAiChat, json!({ "messages": [], "web_search_options": {} })),
        (OpenAiChat, json!({ "messages": [], "tools": [{ "type": "mcp", "server_url": "https://x" }] })),
        (OpenAiChat, json!({ "messages": [], "previous_response_id": "r" })),
        (Anthropic, claude(json!({ "type": "image", "source": { "type": "url", "url": "https://x" } }))),
        (Anthropic, claude(json!({ "type": "image", "source": { "type": "file", "file_id": "f" } }))),
        (Anthropic, claude(json!({ "type": "document", "source": { "type": "url", "url": "https://x" } }))),
        (Anthropic, claude(json!({ "type": "document", "source": { "type": "base64", "data": "JVBERi0xLjcK" } }))),
        (Anthropic, claude(json!({ "type": "container_upload", "file_id": "f" }))),
        (
            Anthropic,
            claude(json!({ "type": "tool_result", "content": [{ "type": "image", "source": { "type": "file" } }] })),
        ),
        (Anthropic, json!({ "messages": [], "tools": [{ "type": "web_search_20250305", "name": "web_search" }] })),
        (Anthropic, json!({ "messages": [], "mcp_servers": [{ "type": "url", "url": "https://x" }] })),
        (Anthropic, json!({ "messages": [], "container": "c" })),
        (Gemini, gemini(json!({ "fileData": { "fileUri": "https://x" } }))),
        (Gemini, gemini(json!({ "file_data": { "file_uri": "https://x" } }))),
        (Gemini, json!({ "contents": [], "cachedContent": "c" })),
        (Gemini, json!({ "contents": [], "tools": [{ "googleSearch": {} }] })),
        (Gemini, json!({ "generateContentRequest": { "cached_content": "c" } })),
    ] {
        assert!(weighed(dialect, &body.to_string()).is_unseen, "{dialect:?} {body}");
    }
}

#[test]
fn what_stands_in_the_body_is_seen() {
    for (dialect, body) in [
        (OpenAiChat, json!({ "messages": [{ "role": "user", "content": "x" }], "tools": [{ "type": "function" }] })),
        (
            Anthropic,
            json!({ "messages": [{ "role": "assistant", "content": [
            { "type": "tool_use", "input": { "url": "https://x", "file_id": "f" } }] }],
            "tools": [{ "name": "own" }, { "type": "bash_20250124", "name": "bash" }] }),
        ),
        (
            Anthropic,
            json!({ "messages": [{ "role": "user", "content": [
            { "type": "document", "source": { "type": "text", "data": "x" } }] }] }),
        ),
        (
            Gemini,
            json!({ "contents": [{ "parts": [{ "functionCall": { "args": { "uri": "x" } } }] }],
            "tools": [{ "functionDeclarations": [] }] }),
        ),
    ] {
        let size = weighed(dialect, &body.to_string());
        assert_eq!(
            (size.is_unseen, size.images, size.tool_calls),
            (false, 0, domain::ai::ToolCalls::default()),
            "{body}"
        );
    }
}

#[test]
fn the_providers_tools_are_counted_by_their_most_uses() {
    let claude = json!({ "messages": [], "tools": [{ "type": "web_search_20250305", "max_uses": 3 },
        { "type": "web_fetch_20250910" }, { "name": "own", "input_schema": {} }] });
    let calls = weighed(Anthropic, &claude.to_string()).tool_calls;
    assert_eq!((calls.web_search, calls.web_fetch, calls.code_execution), (3, 5, 0));
    for (uses, searches) in [(json!(1_000.0), 1_000), (json!("100"), 100), (json!(-1), 1_000), (json!(null), 5)] {
        let claude = json!({ "messages": [], "tools": [{ "type": "web_search_20250305", "max_uses": uses }] });
        assert_eq!(weighed(Anthropic, &claude.to_string()).tool_calls.web_search, searches, "{claude}");
    }
    let openai = json!({ "messages": [], "web_search_options": {}, "n": 3.0 });
    assert_eq!(weighed(OpenAiChat, &openai.to_string()).tool_calls.web_search, 3);
    let openai = json!({ "messages": [], "web_search_options": {}, "n": 2 });
    assert_eq!(weighed(OpenAiChat, &openai.to_string()).tool_calls.web_search, 2);
    let gemini = json!({ "contents": [], "tools": [{ "googleSearch": {} }, { "codeExecution": {} }] });
    let calls = weighed(Gemini, &gemini.to_string()).tool_calls;
    assert_eq!((calls.web_search, calls.web_fetch, calls.code_execution), (5, 0, 5));
}

/// The counter takes 35 ms a megabyte at worst.
#[test]
fn of_a_large_body_a_bounded_part_is_counted_and_all_is_weighed() {
    let counted = std::cell::Cell::new(0_usize);
    let count = |text: &str| {
        counted.set(counted.get() + text.len());
        0
    };
    let body = json!({ "messages": [{ "role": "user", "content": "é".repeat(16 * 1_024 * 1_024) }] });
    let text = body.to_string();
    let size = weigh(Anthropic, &text, &body, &count);
    assert!(counted.get() <= COUNTED_MAX);
    assert!(size.text_tokens >= 28 * 1_024 * 1_024 / BYTES_A_TOKEN_HELD, "more than any model takes");
    assert_eq!(size.text_bytes, u64::try_from(text.len()).unwrap());
}
