//! Calls against the sandbox: every dialect, whole and streamed, with its own models and those of the other providers;
//! and the limits of the plan.

use harness::{Answer, Request, TestApp, TestUser};
use serde_json::{Value, json};

use super::asking::{ALL, Dialect, started};

/// Allows a user this many calls.
pub async fn allow(app: &TestApp, user: &TestUser, calls: impl Into<Option<i64>>) {
    let body = json!({ "enabled": true, "limit_value": calls.into() });
    let path = format!("/api/admin/users/{}/overrides/ai_requests", user.id);
    let granted = app.put(&path).bearer(&app.admin().await).json(body).send().await;
    assert!(granted.status < 300, "{granted}");
}

pub async fn used(app: &TestApp, user: &TestUser) -> i64 {
    let path = "/api/users/me/features/ai_requests?consistency=strong";
    let feature = app.get(path).bearer(user).send().await.expect_status(200);
    feature.at("/current").as_i64().unwrap()
}

/// The text of a whole response.
pub fn said(dialect: Dialect, answer: &Answer) -> String {
    let pointer = match dialect {
        Dialect::OpenAi => "/choices/0/message/content",
        Dialect::Anthropic => "/content/0/text",
        Dialect::Gemini => "/candidates/0/content/parts/0/text",
    };
    answer.text_at(pointer).to_owned()
}

/// The input and output tokens in a whole response.
pub fn told_usage(dialect: Dialect, body: &Value) -> (u64, u64) {
    let (input, output) = match dialect {
        Dialect::OpenAi => ("/usage/prompt_tokens", "/usage/completion_tokens"),
        Dialect::Anthropic => ("/usage/input_tokens", "/usage/output_tokens"),
        Dialect::Gemini => ("/usageMetadata/promptTokenCount", "/usageMetadata/candidatesTokenCount"),
    };
    let number = |pointer| body.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer}: {body}"));
    (number(input), number(output))
}

/// The same conversation as a stream.
pub fn streamed(dialect: Dialect, app: &TestApp, key: &str, model: &str, text: &str) -> Request {
    let mut body = dialect.body(model, text);
    let path = match dialect {
        Dialect::OpenAi => {
            body["stream"] = json!(true);
            body["stream_options"] = json!({ "include_usage": true });
            dialect.path(model)
        }
        Dialect::Anthropic => {
            body["stream"] = json!(true);
            dialect.path(model)
        }
        Dialect::Gemini => format!("/v1beta/models/{model}:streamGenerateContent?alt=sse"),
    };
    dialect.signed(app.post(&path).json(body), key)
}

/// The data of each event that is JSON.
pub fn events(text: &str) -> Vec<Value> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter_map(|data| serde_json::from_str(data).ok()).collect()
}

/// The concatenated text of a stream.
pub fn streamed_text(dialect: Dialect, events: &[Value]) -> String {
    let pointer = match dialect {
        Dialect::OpenAi => "/choices/0/delta/content",
        Dialect::Anthropic => "/delta/text",
        Dialect::Gemini => "/candidates/0/content/parts/0/text",
    };
    events.iter().filter_map(|event| event.pointer(pointer).and_then(Value::as_str)).collect()
}

#[tokio::test]
async fn the_sandbox_answers_in_every_dialect_for_every_model() {
    let (app, ada, key) = started().await;
    allow(&app, &ada, None).await;
    for dialect in ALL {
        for of in ALL {
            let model = of.own_model();
            let answer = dialect.ask(&app, &key, model).send().await.expect_status(200);
            let text = said(dialect, &answer);
            assert!(text.contains("Say something.") && text.contains(model), "{answer}");
            let (input, output) = told_usage(dialect, &answer.body);
            assert!(input > 0 && output > 5, "{answer}");
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            answer.header("x-product-base-call-id").unwrap().parse::<uuid::Uuid>().unwrap();
            assert_eq!(answer.header("x-product-base-cost-usd"), None, "the sandbox bills nobody");
        }
    }
    assert_eq!(used(&app, &ada).await, 9);
}

#[tokio::test]
async fn a_stream_says_what_a_whole_answer_says() {
    let (app, ada, key) = started().await;
    allow(&app, &ada, None).await;
    for dialect in ALL {
        for of in ALL {
            let model = of.own_model();
            let whole = dialect.ask(&app, &key, model).send().await.expect_status(200);
            let stream = streamed(dialect, &app, &key, model, "Say something.").send().await.expect_status(200);
            let kind = stream.header("content-type").unwrap();
            assert!(kind.starts_with("text/event-stream"), "{kind}");
            assert!(stream.header("x-product-base-call-id").is_some(), "{stream}");
            let events = events(&stream.text);
            assert_eq!(streamed_text(dialect, &events), said(dialect, &whole), "{dialect:?} {model}");
            let last = match dialect {
                Dialect::OpenAi => {
                    assert!(stream.text.ends_with("data: [DONE]\n\n"), "{stream}");
                    events.last().unwrap().clone()
                }
                Dialect::Anthropic => {
                    assert_eq!(events.last().unwrap()["type"], "message_stop");
                    events[events.len() - 2].clone()
                }
                Dialect::Gemini => events.last().unwrap().clone(),
            };
            assert_eq!(told_usage(dialect, &last), told_usage(dialect, &whole.body), "{last}");
        }
    }
}

#[tokio::test]
async fn the_array_of_gemini_is_one_json_document() {
    let (app, ada, key) = started().await;
    allow(&app, &ada, None).await;
    let path = "/v1/models/gemini-2.5-flash:streamGenerateContent";
    let request = app.post(path).json(Dialect::Gemini.body("", "Say something."));
    let answer = Dialect::Gemini.signed(request, &key).send().await.expect_status(200);
    assert_eq!(answer.header("content-type"), Some("application/json; charset=UTF-8"));
    let chunks = answer.body.as_array().unwrap_or_else(|| panic!("an array, got {answer}"));
    assert!(chunks.len() > 3, "{answer}");
    assert!(streamed_text(Dialect::Gemini, chunks).contains("Say something."), "{answer}");
    assert_eq!(chunks.last().unwrap()["candidates"][0]["finishReason"], "STOP");
}

#[tokio::test]
async fn tools_go_there_and_come_back_in_every_dialect() {
    let (app, ada, key) = started().await;
    allow(&app, &ada, None).await;
    let schema = json!({ "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] });
    for (dialect, tools, pointer) in [
        (
            Dialect::OpenAi,
            json!([{ "type": "function", "function": { "name": "get_weather", "parameters": schema } }]),
            "/choices/0/message/tool_calls/0/function/name",
        ),
        (Dialect::Anthropic, json!([{ "name": "get_weather", "input_schema": schema }]), "/content/0/name"),
        (
            Dialect::Gemini,
            json!([{ "functionDeclarations": [{ "name": "get_weather", "parameters": schema }] }]),
            "/candidates/0/content/parts/0/functionCall/name",
        ),
    ] {
        for of in ALL {
            let mut body = dialect.body(of.own_model(), "Please call get_weather for me.");
            body["tools"] = tools.clone();
            let request = app.post(&dialect.path(of.own_model())).json(body);
            let answer = dialect.signed(request, &key).send().await.expect_status(200);
            assert_eq!(answer.text_at(pointer), "get_weather", "{answer}");
        }
    }
}

#[tokio::test]
async fn embeddings_are_made_in_both_dialects() {
    let (app, ada, key) = started().await;
    allow(&app, &ada, None).await;
    let body = json!({ "model": "text-embedding-3-small", "input": ["one", "two"] });
    let made = app.post("/v1/embeddings").bearer(&key).json(body).send().await.expect_status(200);
    assert_eq!(made.at("/data").as_array().unwrap().len(), 2);
    let path = "/v1beta/models/gemini-embedding-001:embedContent";
    let request = app.post(path).json(json!({ "content": { "parts": [{ "text": "one" }] } }));
    let made = Dialect::Gemini.signed(request, &key).send().await.expect_status(200);
    assert!(made.at("/embedding/values").as_array().unwrap().len() > 100, "{made}");
    assert_eq!(used(&app, &ada).await, 2);
}

#[tokio::test]
async fn a_limit_is_refused_in_the_dialect_and_not_to_be_retried() {
    let (app, ada, key) = started().await;
    for dialect in ALL {
        // The plan `free` does not include the feature.
        let answer = dialect.ask(&app, &key, dialect.own_model()).send().await;
        let answer = dialect.expect_error(answer, 403);
        assert!(answer.text_at("/error/message").contains("ai_requests"), "{answer}");
    }
    allow(&app, &ada, 1).await;
    Dialect::OpenAi.ask(&app, &key, "gpt-6-sol").send().await.expect_status(200);
    for dialect in ALL {
        for request in
            [dialect.ask(&app, &key, dialect.own_model()), streamed(dialect, &app, &key, dialect.own_model(), "x")]
        {
            let answer = dialect.expect_error(request.send().await, 429);
            assert_eq!(answer.header("x-should-retry"), Some("false"), "{answer}");
            let message = answer.text_at("/error/message");
            assert!(message.contains("ai_requests") && message.contains("1 of 1"), "{answer}");
        }
    }
    let told = Dialect::OpenAi.ask(&app, &key, "gpt-6-sol").send().await;
    assert_eq!(
        (told.at("/error/code"), told.at("/error/type")),
        (&json!("plan_limit_exceeded"), &json!("insufficient_quota"))
    );
    assert_eq!(told.at("/error/details/limit"), 1);
    let told = Dialect::Gemini.ask(&app, &key, "gpt-6-sol").send().await;
    assert_eq!(told.at("/error/details/0/metadata/limit"), "1");
}

#[tokio::test]
async fn a_key_has_limits_of_its_own() {
    let (app, ada, _) = started().await;
    allow(&app, &ada, None).await;
    let key = |limits: Value| {
        let body = json!({ "name": "k", "permissions": ["ai:chat"], "limits": limits });
        app.post("/api/keys").bearer(&ada).json(body).send()
    };
    let made = key(json!({ "requests_per_minute": 1 })).await.expect_status(201);
    let slow = made.text_at("/key");
    Dialect::Anthropic.ask(&app, slow, "claude-sonnet-5").send().await.expect_status(200);
    let answer = Dialect::Anthropic.ask(&app, slow, "claude-sonnet-5").send().await;
    let answer = Dialect::Anthropic.expect_error(answer, 429);
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait) && answer.header("x-should-retry").is_none(), "{answer}");
    let made = key(json!({ "monthly_cost_usd": "0.000001" })).await.expect_status(201);
    let answer = Dialect::OpenAi.ask(&app, made.text_at("/key"), "gpt-6-sol").send().await;
    let answer = Dialect::OpenAi.expect_error(answer, 429);
    assert_eq!(answer.at("/error/code"), "key_cost_limit_exceeded");
    assert_eq!(answer.header("x-should-retry"), Some("false"), "{answer}");
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=31 * 86_400).contains(&wait), "until the month turns: {answer}");
}
