//! An invalid request gets a 400 in the dialect that names the field, before anything is reserved.

use serde_json::{Value, json};

use super::asking::{ALL, Dialect, started};

/// The field of a body that contains the messages.
const fn messages(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::OpenAi | Dialect::Anthropic => "messages",
        Dialect::Gemini => "contents",
    }
}

#[tokio::test]
async fn a_body_that_is_no_request_is_refused() {
    let (app, _, key) = started().await;
    for dialect in ALL {
        let post = |body: &[u8]| {
            let request = app.post(&dialect.path(dialect.own_model())).raw("application/json", body);
            dialect.signed(request, &key).send()
        };
        for body in [b"".as_slice(), b"{", b"[]", b"\"x\"", b"{\"messages\":\"\xff\"}"] {
            dialect.expect_error(post(body).await, 400);
        }
        // Ten MiB are accepted, and fail as JSON.
        let large = vec![b' '; 10 * 1_024 * 1_024];
        let answer = dialect.expect_error(post(&large).await, 400);
        assert!(answer.text_at("/error/message").contains("JSON"), "{answer}");
    }
}

#[tokio::test]
async fn messages_are_there() {
    let (app, _, key) = started().await;
    for dialect in ALL {
        let list = messages(dialect);
        let own = dialect.body(dialect.own_model(), "x");
        for (change, field) in
            [(json!([]), list.to_owned()), (Value::Null, list.to_owned()), (json!("x"), list.to_owned())]
        {
            let mut body = own.clone();
            body[list] = change;
            let request = app.post(&dialect.path(dialect.own_model())).json(body);
            dialect.expect_field(dialect.signed(request, &key).send().await, &field);
        }
    }
}

#[tokio::test]
async fn models_are_named_and_claude_has_a_bound() {
    let (app, _, key) = started().await;
    for (dialect, change, field) in [
        (Dialect::OpenAi, json!({ "model": null }), "model"),
        (Dialect::Anthropic, json!({ "max_tokens": null }), "max_tokens"),
        (Dialect::Anthropic, json!({ "model": 5 }), "model"),
    ] {
        let mut body = dialect.body(dialect.own_model(), "x");
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let request = app.post(&dialect.path(dialect.own_model())).json(body);
        dialect.expect_field(dialect.signed(request, &key).send().await, field);
    }
}

/// A PNG of one pixel with this many bytes of padding.
fn picture(padding: usize) -> String {
    let png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg";
    format!("{png}{}==", "AAAA".repeat(padding / 3))
}

/// A session of a coding agent sends all its images again with every turn.
#[tokio::test]
async fn pictures_have_no_bounds_but_the_size_of_the_body() {
    let (app, ada, key) = started().await;
    let plan = json!({ "plan_id": "platinum" });
    app.post("/api/users/me/plan").bearer(&ada).json(plan).send().await.expect_status(200);
    let image = json!({ "type": "image_url", "image_url": { "url": format!("data:image/png;base64,{}", picture(0)) } });
    let mut body = Dialect::OpenAi.body("gpt-6-sol", "x");
    body["messages"][0]["content"] = json!(vec![image; 60]);
    app.post("/v1/chat/completions").bearer(&key).json(body).send().await.expect_status(200);
    let mut body = Dialect::Gemini.body("", "x");
    body["contents"][0]["parts"] =
        json!([{ "inlineData": { "mimeType": "image/png", "data": picture(5 * 1_024 * 1_024) } }]);
    let request = app.post("/v1/models/gemini-2.5-flash:generateContent").json(body);
    Dialect::Gemini.signed(request, &key).send().await.expect_status(200);
}

#[tokio::test]
async fn what_cannot_be_translated_is_named() {
    let (app, _, key) = started().await;
    let image = json!({ "type": "image_url", "image_url": { "url": "https://example.com/x.png" } });
    let mut with_image = Dialect::OpenAi.body("claude-sonnet-5", "x");
    with_image["messages"][0]["content"] = json!([{ "type": "text", "text": "x" }, image]);
    let mut with_effort = Dialect::OpenAi.body("gemini-2.5-flash", "x");
    with_effort["reasoning_effort"] = json!("high");
    let mut twice = Dialect::OpenAi.body("claude-sonnet-5", "x");
    twice["n"] = json!(2);
    let mut with_top_k = Dialect::Anthropic.body("gpt-6-sol", "x");
    with_top_k["top_k"] = json!(5);
    let mut with_role = Dialect::Anthropic.body("gpt-6-sol", "x");
    with_role["messages"][0]["role"] = json!("robot");
    let mut with_search = Dialect::Gemini.body("", "x");
    with_search["tools"] = json!([{ "googleSearch": {} }]);
    for (dialect, model, body, field) in [
        (Dialect::OpenAi, "", with_image, "messages[0].content[1].image_url"),
        (Dialect::OpenAi, "", with_effort, "reasoning_effort"),
        (Dialect::OpenAi, "", twice, "n"),
        (Dialect::Anthropic, "", with_top_k, "top_k"),
        (Dialect::Anthropic, "", with_role, "messages[0].role"),
        (Dialect::Gemini, "gpt-6-sol", with_search, "tools[0].googleSearch"),
    ] {
        let request = app.post(&dialect.path(model)).json(body);
        dialect.expect_field(dialect.signed(request, &key).send().await, field);
    }
}

#[tokio::test]
async fn a_model_is_asked_for_what_it_makes() {
    let (app, _, key) = started().await;
    let chat = Dialect::OpenAi.ask(&app, &key, "text-embedding-3-small").send().await;
    assert_eq!(Dialect::OpenAi.expect_error(chat, 400).at("/error/code"), "wrong_purpose");
    let embed = |model: &str, input: Value| {
        app.post("/v1/embeddings").bearer(&key).json(json!({ "model": model, "input": input })).send()
    };
    let answer = embed("gpt-6-sol", json!("x")).await;
    assert_eq!(Dialect::OpenAi.expect_error(answer, 400).at("/error/code"), "wrong_purpose");
    Dialect::OpenAi.expect_field(embed("gemini-embedding-001", json!("x")).await, "model");
    Dialect::OpenAi.expect_field(embed("text-embedding-3-small", json!([])).await, "input");
    let path = "/v1beta/models/gemini-embedding-001:batchEmbedContents";
    let request = app.post(path).json(json!({ "requests": [{}] }));
    Dialect::Gemini.expect_field(Dialect::Gemini.signed(request, &key).send().await, "requests[0].content");
}
