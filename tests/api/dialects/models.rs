//! The list of models in three formats.

use harness::TestApp;
use serde_json::json;

use super::asking::{Dialect, started};
use crate::find;

#[tokio::test]
async fn the_models_have_the_shape_of_whoever_asks() {
    let (app, _, key) = started().await;
    let list = app.get("/v1/models").bearer(&key).send().await.expect_status(200);
    assert_eq!(list.at("/object"), "list");
    let sol = find(list.at("/data"), "id", "gpt-6-sol");
    assert_eq!((&sol["object"], &sol["owned_by"]), (&json!("model"), &json!("openai")));
    assert!(sol["created"].as_i64().is_some_and(|seconds| seconds >= 0), "{sol}");
    find(list.at("/data"), "owned_by", "claude");

    let anthropic = Dialect::Anthropic.signed(app.get("/v1/models"), &key).send().await.expect_status(200);
    assert_eq!(anthropic.at("/has_more"), false);
    assert_eq!(anthropic.at("/first_id"), anthropic.at("/data/0/id"));
    let sonnet = find(anthropic.at("/data"), "id", "claude-sonnet-5");
    assert_eq!(sonnet["type"], "model");
    sonnet["created_at"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();

    let gemini = Dialect::Gemini.signed(app.get("/v1beta/models"), &key).send().await.expect_status(200);
    let flash = find(gemini.at("/models"), "name", "models/gemini-2.5-flash");
    assert_eq!(flash["supportedGenerationMethods"], json!(["generateContent", "countTokens"]));
    assert!(flash["inputTokenLimit"].as_u64().is_some_and(|tokens| tokens > 100_000), "{flash}");
    let stable = Dialect::Gemini.signed(app.get("/v1/models"), &key).send().await.expect_status(200);
    assert_eq!(stable.body, gemini.body);
}

/// A client that reads all pages gets every model once, in each dialect.
#[tokio::test]
async fn the_models_come_in_pages_where_pages_are_asked_for() {
    let (app, _, key) = started().await;
    for (dialect, path, list, id, size, edge) in [
        (Dialect::OpenAi, "/v1/models", "/data", "id", "limit", "after"),
        (Dialect::Anthropic, "/v1/models", "/data", "id", "limit", "after_id"),
        (Dialect::Gemini, "/v1beta/models", "/models", "name", "pageSize", "pageToken"),
    ] {
        let read = |query: Vec<(&'static str, String)>| {
            let pairs: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
            dialect.signed(app.get(path).query(&pairs), &key).send()
        };
        let ids = |answer: &harness::Answer| -> Vec<String> {
            let models = answer.at(list).as_array().unwrap().iter();
            models.map(|model| model[id].as_str().unwrap().to_owned()).collect()
        };
        let all = ids(&read(vec![]).await.expect_status(200));
        let (mut seen, mut after) = (Vec::new(), None::<String>);
        loop {
            let mut query = vec![(size, "3".to_owned())];
            query.extend(after.take().map(|after| (edge, after)));
            let page = read(query).await.expect_status(200);
            seen.extend(ids(&page));
            after = match dialect {
                Dialect::Gemini => page.body["nextPageToken"].as_str().map(str::to_owned),
                _ if page.at("/has_more") == true => Some(page.text_at("/last_id").to_owned()),
                _ => None,
            };
            if dialect != Dialect::Gemini {
                assert_eq!(page.at("/first_id"), &page.at(list)[0]["id"], "{page}");
            }
            if after.is_none() {
                break;
            }
        }
        assert!(all.len() > 3, "{dialect:?}");
        assert_eq!(seen, all, "{dialect:?}");
        dialect.expect_field(read(vec![(size, "many".to_owned())]).await, size);
        dialect.expect_field(read(vec![(edge, "no-such-model".to_owned())]).await, edge);
    }
    let before = app.get("/v1/models").query(&[("limit", "1"), ("before_id", "gpt-6-sol")]);
    let before = Dialect::Anthropic.signed(before, &key).send().await.expect_status(200);
    assert_eq!(before.at("/data").as_array().unwrap().len(), 1, "{before}");
}

#[tokio::test]
async fn one_model_is_found_by_its_names() {
    let (app, _, key) = started().await;
    let read = |name: &str| app.get(&format!("/v1/models/{name}")).bearer(&key).send();
    assert_eq!(read("gpt-6-sol").await.expect_status(200).at("/id"), "gpt-6-sol");
    assert_eq!(read("openai/gpt-6-sol").await.expect_status(200).at("/id"), "gpt-6-sol");
    assert_eq!(read("openai%2Fgpt-6-sol").await.expect_status(200).at("/id"), "gpt-6-sol");
    assert_eq!(read("text-embedding-3-small").await.expect_status(200).at("/id"), "text-embedding-3-small");
    let path = "/v1beta/models/gemini-embedding-001";
    let embedding = Dialect::Gemini.signed(app.get(path), &key).send().await.expect_status(200);
    assert_eq!(embedding.at("/supportedGenerationMethods/0"), "embedContent");
    let path = "/v1/models/claude-sonnet-5";
    let sonnet = Dialect::Anthropic.signed(app.get(path), &key).send().await.expect_status(200);
    assert_eq!(sonnet.at("/type"), "model");
}

#[tokio::test]
async fn an_unknown_model_is_told_with_near_names() {
    let (app, _, key) = started().await;
    for dialect in super::asking::ALL {
        let prefix = if dialect == Dialect::Gemini { "/v1beta/models" } else { "/v1/models" };
        let read = dialect.signed(app.get(&format!("{prefix}/gpt-6-soul")), &key).send().await;
        let asked = dialect.ask(&app, &key, "gpt-6-soul").send().await;
        for answer in [read, asked] {
            let answer = dialect.expect_error(answer, 404);
            assert!(answer.text_at("/error/message").contains("gpt-6-sol"), "{answer}");
        }
    }
    let tuned = app.get("/v1/models/ft:gpt-4o:acme/team::1").bearer(&key).send().await;
    let tuned = Dialect::OpenAi.expect_error(tuned, 404);
    assert_eq!(tuned.at("/error/code"), "model_not_found");
}

#[tokio::test]
async fn tokens_are_counted_without_a_call() {
    let (app, ada, key) = started().await;
    let body = json!({ "model": "claude-sonnet-5", "system": "Be kind.", "messages": [{ "role": "user", "content": "Hello!" }] });
    let path = "/v1/messages/count_tokens";
    let count = |body| Dialect::Anthropic.signed(app.post(path).json(body), &key).send();
    let counted = count(body.clone()).await.expect_status(200);
    let few = counted.at("/input_tokens").as_u64().unwrap();
    assert!((5..40).contains(&few), "{counted}");
    let mut longer = body;
    longer["messages"][0]["content"] = json!("Hello! ".repeat(100));
    let many = count(longer).await.expect_status(200).at("/input_tokens").as_u64().unwrap();
    assert!(many > few + 90, "{many} against {few}");
    let path = "/v1beta/models/gemini-2.5-flash:countTokens";
    for body in [
        json!({ "contents": [{ "parts": [{ "text": "Hello!" }] }] }),
        json!({ "generateContentRequest": { "contents": [{ "parts": [{ "text": "Hello!" }] }] } }),
    ] {
        let counted = Dialect::Gemini.signed(app.post(path).json(body), &key).send().await.expect_status(200);
        assert!(counted.at("/totalTokens").as_u64().is_some_and(|tokens| (4..20).contains(&tokens)), "{counted}");
    }
    assert_eq!(used(&app, &ada).await, 0, "counting is free");
}

async fn used(app: &TestApp, user: &harness::TestUser) -> i64 {
    let feature = app.get("/api/users/me/features/ai_requests").bearer(user).send().await.expect_status(200);
    feature.at("/current").as_i64().unwrap()
}
