//! The response of a paid call is replayed only to credentials that could have made the call themselves.

use serde_json::{Value, json};
use testkit::upstream::{Fault, Script};

use super::stage::{Stage, asked, expect_replay, openai, ours};

/// An API key of Ada's for calls, with further fields.
async fn key(stage: &Stage, mut more: Value) -> String {
    let mut body = json!({ "name": "k", "permissions": ["ai:chat"] });
    body.as_object_mut().unwrap().append(more.as_object_mut().unwrap());
    let made = stage.app.post("/api/keys").bearer(&stage.ada).json(body).send().await.expect_status(201);
    made.text_at("/key").to_owned()
}

#[tokio::test]
async fn a_weaker_key_gets_nothing_of_a_call_while_it_runs_or_afterwards_on_any_process() {
    let stage = Stage::new().await;
    let beside = stage.beside().await;
    let limited = key(&stage, json!({ "limits": { "requests_per_minute": 100 } })).await;
    let short = key(&stage, json!({ "expires_at": crate::in_seconds(600) })).await;
    let refused = async || {
        for weak in [&limited, &short] {
            for process in [&stage.app, &beside] {
                let answer = asked(process, &ours(true), weak).idempotency_key("k").send().await;
                answer.expect_problem(403, "idempotency_key_forbidden");
            }
        }
    };
    stage.stub.script("gpt-6-sol", Script::words(20).with_fault(Fault::HoldAfter { events: 5 }));
    let first = stage.begun(&ours(true), "k").await;
    stage.stub.until("for the call", |stub| stub.held() == 1).await;
    let running = asked(&stage.app, &ours(true), &limited).idempotency_key("k").send().await;
    running.expect_problem(403, "idempotency_key_forbidden");
    stage.stub.let_go(1);
    let text = first.text().await.unwrap();
    stage.written().await;
    refused().await;
    let other = key(&stage, json!({})).await;
    for strong in [stage.key.as_str(), other.as_str(), stage.ada.access_token.as_str()] {
        let again = asked(&beside, &ours(true), strong).idempotency_key("k").send().await.expect_status(200);
        assert_eq!(again.text, text);
    }
    stage.expect_calls(1).await;
    stage.stub.script("gpt-6-sol", Script::words(3));
    let by_the_limited = asked(&stage.app, &openai(false), &limited).idempotency_key("l").send().await;
    stage.written().await;
    expect_replay(&by_the_limited, &stage.keyed(&openai(false), "l").await);
    stage.expect_calls(2).await;
}
