//! Requests as real clients send them: the gateway reads the model, the format, the token limit and the size, and
//! passes the rest unchanged.

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use harness::Request;
use serde_json::{Value, json};

use super::asking::{ALL, Dialect, started};
use super::calls::{allow, events, said, streamed_text};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A turn of a coding agent, as it is sent.
fn coding_turn(text: &str, streamed: bool) -> Value {
    json!({
        "model": "claude-opus-5", "max_tokens": 32_000, "stream": streamed, "temperature": 1,
        "system": [{ "type": "text", "text": "You are an agent.", "cache_control": { "type": "ephemeral" } }],
        "messages": [
            { "role": "user", "content": [
                { "type": "text", "text": "<system-reminder>Use Bash and Read with care.</system-reminder>" },
                { "type": "text", "text": text, "cache_control": { "type": "ephemeral" } }] },
            { "role": "system", "content": "be terse" }],
        "tools": [{ "name": "Bash", "description": "Runs a command.", "input_schema": {
            "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
            "properties": { "command": { "type": "string" } }, "required": ["command"] } },
            { "type": "web_search_20250305", "name": "web_search" }],
        "thinking": { "type": "adaptive" }, "metadata": { "user_id": "{\"device_id\":\"d\"}" },
        "context_management": { "edits": [{ "type": "clear_thinking_20251015", "keep": "all" }] },
        "output_config": { "effort": "high" },
    })
}

#[tokio::test]
async fn a_coding_agent_makes_a_turn_with_a_tool_in_anthropics_dialect() {
    let (app, ada, key) = started().await;
    allow(&app, &ada, None).await;
    let ask = |body: Value| {
        let request = app.post("/v1/messages?beta=true").bearer(&key).json(body);
        let betas = "claude-code-20250219,interleaved-thinking-2025-05-14,".repeat(60);
        request.header("anthropic-beta", betas.trim_end_matches(',')).send()
    };
    let answer = ask(coding_turn("say hello", false)).await.expect_status(200);
    assert!(said(Dialect::Anthropic, &answer).contains("say hello"), "{answer}");
    let called = ask(coding_turn("call Bash please", false)).await.expect_status(200);
    assert_eq!((called.at("/stop_reason"), called.at("/content/0/name")), (&json!("tool_use"), &json!("Bash")));
    let mut next = coding_turn("call Bash please", true);
    let messages = next["messages"].as_array_mut().unwrap();
    messages.push(json!({ "role": "assistant", "content": [{ "type": "thinking", "thinking": "t", "signature": "s" },
        called.at("/content/0")] }));
    messages.push(json!({ "role": "user", "content": [{ "type": "tool_result", "is_error": null,
        "tool_use_id": called.at("/content/0/id"),
        "content": [{ "type": "text", "text": "a file" },
            { "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": "AA==" } }] }] }));
    let streamed = ask(next).await.expect_status(200);
    let text = streamed_text(Dialect::Anthropic, &events(&streamed.text));
    assert!(text.contains("Bash answered \"a file\""), "{streamed}");
}

#[tokio::test]
async fn odd_bounds_roles_and_fields_are_taken() {
    let (app, ada, key) = started().await;
    allow(&app, &ada, None).await;
    for (dialect, change) in [
        (Dialect::Anthropic, json!({ "max_tokens": 0 })),
        (Dialect::Anthropic, json!({ "max_tokens": 10.0, "stream": null, "tools": null, "system": null })),
        (
            Dialect::Anthropic,
            json!({ "messages": [{ "role": "user", "content": "hi" }, { "role": "system", "content": "be terse" }] }),
        ),
        (Dialect::Anthropic, json!({ "messages": [{ "role": "robot", "content": [{ "type": "unheard_of" }] }] })),
        (Dialect::OpenAi, json!({ "max_tokens": 0, "n": null, "stream_options": null, "stop": { "a": 1 } })),
        (Dialect::OpenAi, json!({ "max_completion_tokens": 10.0, "tool_choice": 7, "response_format": [] })),
        (Dialect::OpenAi, json!({ "messages": [{ "role": "critic", "content": null }], "reasoning_effort": "none" })),
        (Dialect::Gemini, json!({ "generationConfig": { "maxOutputTokens": 10.0, "candidateCount": 1.0 } })),
        (Dialect::Gemini, json!({ "contents": [{ "role": "tool", "parts": [{ "text": "x" }] }], "safetySettings": 5 })),
    ] {
        let mut body = dialect.body(dialect.own_model(), "x");
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let request = app.post(&dialect.path(dialect.own_model())).json(&body);
        dialect.signed(request, &key).send().await.expect_status(200);
    }
    let mut warming = Dialect::Anthropic.body("claude-opus-5", "x");
    warming["max_tokens"] = json!(0);
    let warmed = app.post("/v1/messages").bearer(&key).json(warming).send().await.expect_status(200);
    assert_eq!((warmed.at("/stop_reason"), warmed.at("/usage/output_tokens")), (&json!("max_tokens"), &json!(0)));
    // Half of a surrogate pair, which some clients send.
    let half = br#"{"model":"claude-opus-5","max_tokens":9,"messages":[{"role":"user","content":"\ud83d"}]}"#;
    app.post("/v1/messages").bearer(&key).raw("application/json", half.as_slice()).send().await.expect_status(200);
}

#[tokio::test]
async fn a_body_is_json_however_it_is_packed_and_declared() {
    let (app, ada, key) = started().await;
    allow(&app, &ada, None).await;
    for dialect in ALL {
        let body = serde_json::to_vec(&dialect.body(dialect.own_model(), "Say something.")).unwrap();
        let post = || dialect.signed(app.post(&dialect.path(dialect.own_model())), &key);
        let packed =
            |coding: &str, body: Vec<u8>| post().raw("application/json", body).header("content-encoding", coding);
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
        zlib.write_all(&body).unwrap();
        for request in [
            packed("gzip", gzip(&body)),
            packed("deflate", zlib.finish().unwrap()),
            post().raw("application/json; charset=utf-8", body.clone()),
            post().raw("application/json", [b"\xef\xbb\xbf".as_slice(), &body].concat()),
            post().raw("application/x-www-form-urlencoded", body.clone()),
        ] {
            let answer = request.send().await.expect_status(200);
            assert!(said(dialect, &answer).contains("Say something."), "{answer}");
        }
        for kind in ["text/plain", "application/xml", "multipart/form-data; boundary=x"] {
            dialect.expect_error(post().raw(kind, body.clone()).send().await, 415);
        }
        dialect.expect_error(post().raw("application/x-www-form-urlencoded", b"model=x".to_vec()).send().await, 415);
        for coding in ["br", "zstd"] {
            let refused = dialect.expect_error(packed(coding, body.clone()).send().await, 415);
            assert_eq!(refused.header("accept-encoding"), Some("gzip, deflate"), "{refused}");
        }
        dialect.expect_error(packed("gzip", gzip(&vec![b' '; 100_000_000])).send().await, 413);
        dialect.expect_error(packed("gzip", body.clone()).send().await, 400);
    }
    // A request without a content type.
    let body = serde_json::to_vec(&Dialect::OpenAi.body("gpt-6-sol", "x")).unwrap();
    let request = app.client().post(app.url("/v1/chat/completions")).bearer_auth(&key).body(body);
    assert_eq!(request.send().await.unwrap().status().as_u16(), 200);
}

#[tokio::test]
async fn a_header_that_is_too_long_to_pass_is_refused_and_never_dropped() {
    let (app, ada, key) = started().await;
    allow(&app, &ada, None).await;
    for (dialect, name) in [(Dialect::Anthropic, "anthropic-beta"), (Dialect::OpenAi, "openai-beta")] {
        let ask = |value: &str| -> Request { dialect.ask(&app, &key, dialect.own_model()).header(name, value) };
        ask(&"a".repeat(16 * 1_024)).send().await.expect_status(200);
        let refused = dialect.expect_error(ask(&"a".repeat(16 * 1_024 + 1)).send().await, 431);
        assert!(refused.text_at("/error/message").contains(name), "{refused}");
    }
}
