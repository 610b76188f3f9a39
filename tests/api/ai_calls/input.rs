//! Invalid calls, and callers without the right to call.

use harness::{Answer, eventually};
use serde_json::{Value, json};

use super::stage::{Stage, hello};
use crate::{HEARD_WITHIN, expect_field};

const ROUTES: [&str; 2] = ["/api/ai/chat", "/api/ai/quote"];

#[tokio::test]
async fn an_unfit_question_names_its_field() {
    let stage = Stage::set().await;
    let message = |role: &str| json!({ "role": role, "content": "x" });
    let base = |field: &str, value: Value| {
        let mut body = hello("gpt-one");
        body[field] = value;
        body
    };
    for (body, field) in [
        (json!({}), "message"),
        (base("messages", json!([message("user")])), "message"),
        (json!({ "message": "" }), "message"),
        (json!({ "messages": [] }), "messages"),
        (json!({ "messages": [message("user"), message("assistant")] }), "messages"),
        (json!({ "messages": [message("system")] }), "messages"),
        (json!({ "messages": [message("user"), message("system"), message("user")] }), "messages[1].role"),
        (base("max_tokens", json!(0)), "max_tokens"),
        (base("max_tokens", json!(1.5)), "max_tokens"),
        (base("max_tokens", json!(1_000_000_001)), "max_tokens"),
        (base("temperature", json!(2.1)), "temperature"),
        (base("top_p", json!(-0.1)), "top_p"),
        (base("stop", json!(["a", "b", "c", "d", "e"])), "stop"),
        (base("model", json!("")), "model"),
        (base("tools", json!([])), "tools"),
    ] {
        for route in ROUTES {
            expect_field(stage.app.post(route).bearer(&stage.ada).json(&body).send().await, field);
        }
    }
    for body in
        [base("provider", json!("acme")), base("session_id", json!("no-id")), json!({ "messages": [message("tool")] })]
    {
        for route in ROUTES {
            stage.app.post(route).bearer(&stage.ada).json(&body).send().await.expect_problem(422, "invalid");
        }
    }
    assert!(stage.upstream.requests().is_empty());
    stage.settled(0).await;
}

#[tokio::test]
async fn an_unknown_model_is_told_with_near_names() {
    let stage = Stage::set().await;
    for route in ROUTES {
        let asked = stage.app.post(route).bearer(&stage.ada).json(hello("gpt-won")).send().await;
        assert_eq!(asked.expect_problem(404, "unknown_model").at("/near/0"), "gpt-one");
        let asked = stage.app.post(route).bearer(&stage.ada).json(hello("q")).send().await;
        assert_eq!(asked.expect_problem(404, "unknown_model").at("/near"), &json!([]));
    }
}

#[tokio::test]
async fn a_long_conversation_is_taken_up_to_two_mebibytes() {
    let stage = Stage::set().await;
    for (bytes, status, code) in
        [(2 * 1024 * 1024 - 1_000, 400, "input_too_long"), (2 * 1024 * 1024 + 1, 413, "too_large")]
    {
        let body = json!({ "message": "ab ".repeat(bytes / 3) });
        for route in ROUTES {
            let answer = stage.app.post(route).bearer(&stage.ada).json(&body).send().await;
            answer.expect_problem(status, code);
        }
    }
}

#[tokio::test]
async fn a_key_needs_the_permission_and_a_user_a_profile() {
    let stage = Stage::set().await;
    for (permission, status) in [("ai:chat", 200), ("usage:write", 403)] {
        let body = json!({ "name": "k", "permissions": [permission] });
        let key = stage.app.post("/api/keys").bearer(&stage.ada).json(body).send().await.expect_status(201);
        for route in ROUTES {
            let asked = stage.app.post(route).bearer(key.text_at("/key")).json(hello("gpt-one")).send().await;
            asked.expect_status(status);
        }
    }
    let eve = stage.app.signup("eve@example.com").await;
    stage.app.database().sql(&format!("DELETE FROM users WHERE id = '{}'", eve.id)).await;
    for route in ROUTES {
        let asked = stage.app.post(route).bearer(&eve).json(hello("gpt-one")).send().await;
        assert!([401, 403].contains(&asked.status), "{asked}");
        stage.app.post(route).json(hello("gpt-one")).send().await.expect_problem(401, "unauthorized");
    }
    stage.settled(1).await;
}

#[tokio::test]
async fn a_quote_holds_nothing_and_says_what_would_be_refused() {
    let stage = Stage::set().await;
    let quote = stage.quote(hello("gpt-one")).await.expect_status(200);
    assert_eq!(
        (quote.at("/max_output_tokens"), quote.at("/tokens"), quote.at("/affordable")),
        (&json!(1_000), &json!(0), &json!(true))
    );
    crate::usage::allow(&stage.app, &stage.ada, "limit_value = 0, overage = 'block'").await;
    // A quote is served from the cache, which sees changes made in SQL after a moment.
    let refused = |quote: &Answer| *quote.at("/decision/reason") == "limit_reached";
    let quote = eventually(HEARD_WITHIN, || stage.quote(hello("gpt-one")), refused).await;
    assert_eq!(quote.at("/affordable"), &json!(false));
    assert!(stage.upstream.requests().is_empty());
    assert_eq!(stage.number("SELECT count(*) FROM usage_reservations").await, 0);
}
