//! A fourth provider that only the settings know: an Azure-like server that speaks OpenAI's dialect.

use std::collections::BTreeMap;

use app::settings::models::parse;
use app::settings::providers::{configured, profiles};
use app::settings::shape::{AiProviderRow, SandboxMode, SecretText, Settings};
use harness::Answer;
use serde_json::{Value, json};
use testkit::upstream::{Refusal, Script, Why};

use super::stage::{Stage, catalogue, hello};

const KEY: &str = "the-key-of-azure";

const MODELS: &str = "[[models]]\nid = \"gpt-azure\"\nprovider = \"azure\"\nmax_input_tokens = 2000\nmax_output_tokens = 1000\n\
    prices = { input = \"3\", output = \"12\" }\n\
    [[models]]\nid = \"gpt-one\"\nprovider = \"azure\"\nprices = { input = \"3\", output = \"12\" }\n";

/// The settings of the provider, with the address of the stub, which the built-in ones have too.
fn add(settings: &mut Settings, api_key: &str) {
    let ai = &mut settings.ai;
    let row = AiProviderRow {
        dialect: Some("openai_chat".to_owned()),
        base_url: Some(ai.openai.base_url.clone()),
        api_key: Some(SecretText::new(api_key)),
        auth: Some("header:api-key".to_owned()),
        headers: BTreeMap::from([("x-of-settings".to_owned(), "yes".to_owned())]),
        query: BTreeMap::from([("api-version".to_owned(), "2026-10-01".to_owned())]),
        known_tokens: Some(true),
        max_attempts: Some(1),
        ..AiProviderRow::default()
    };
    ai.providers.insert("azure".to_owned(), row);
    let providers = profiles(&configured(ai).unwrap());
    ai.models = parse(&format!("{}{MODELS}", catalogue()), &providers).unwrap();
}

async fn stage() -> Stage {
    Stage::with(|settings| add(settings, KEY)).await
}

async fn by_dialect(stage: &Stage, path: &str, mut body: Value) -> Answer {
    body["max_tokens"] = json!(200);
    stage.app.post(path).bearer(&stage.ada).json(body).send().await
}

#[tokio::test]
async fn it_is_called_charged_and_logged_under_its_name_by_settings_alone() {
    let stage = stage().await;
    let own = stage.chat(hello("gpt-azure")).await.expect_status(200);
    assert_eq!((own.at("/provider"), own.at("/model")), (&json!("azure"), &json!("gpt-azure")));
    let native =
        by_dialect(&stage, "/v1/chat/completions", hello_in_dialect("azure/gpt-azure")).await.expect_status(200);
    assert!(!native.text_at("/choices/0/message/content").is_empty(), "{native}");
    let translated = by_dialect(&stage, "/v1/messages", hello_in_dialect("gpt-azure")).await.expect_status(200);
    assert!(!translated.text_at("/content/0/text").is_empty(), "{translated}");
    let streamed = stage.stream(hello("gpt-azure")).await;
    assert_eq!(streamed.last().unwrap().name, "done");
    stage.settled(4).await;
    for request in stage.upstream.requests() {
        assert_eq!(request.path(), "/v1/chat/completions");
        assert_eq!((request.header("api-key"), request.header("authorization")), (Some(KEY), None));
        assert_eq!(request.header("x-of-settings"), Some("yes"));
        assert_eq!(request.parameter("api-version"), Some("2026-10-01"));
        assert_eq!(request.json().unwrap()["model"], "gpt-azure");
    }
    let logged: Vec<(String, i64, i64, i64)> = stage
        .app
        .database()
        .query_all("SELECT provider::text, input_tokens, output_tokens, cost_nano_usd FROM ai_usage_logs")
        .await;
    for (provider, input, output, cost) in logged {
        assert_eq!((provider.as_str(), cost), ("azure", 3_000 * input + 12_000 * output));
        assert!(input > 0 && output > 0);
    }
    let used = stage.app.get("/api/ai/usage?provider=azure").bearer(&stage.ada).send().await.expect_status(200);
    assert_eq!((used.at("/requests"), used.at("/by_provider/0/provider")), (&json!(4), &json!("azure")));
    stage.expect_in_order().await;
}

/// A body that is right in the dialects of `OpenAI` and Anthropic.
fn hello_in_dialect(model: &str) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": "one two three" }] })
}

#[tokio::test]
async fn its_prices_models_and_metrics_have_its_name() {
    let stage = stage().await;
    let admin = stage.app.admin().await;
    let draft =
        json!({ "provider": "azure", "model": "gpt-dear", "kind": "output", "usd_per_million": "9", "version": "v" });
    stage.app.post("/api/admin/prices").bearer(&admin).json(&draft).send().await.expect_status(201);
    let dear = stage.chat(hello("gpt-dear")).await.expect_status(200);
    assert_eq!(dear.at("/provider"), "azure");
    let models = stage.app.get("/api/models?provider=azure").bearer(&stage.ada).send().await.expect_status(200);
    assert_eq!(models.at("/data").as_array().unwrap().len(), 3, "{models}");
    let names = stage.app.get("/v1/models").bearer(&stage.ada).send().await.expect_status(200);
    let names: Vec<&str> =
        names.at("/data").as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(names, ["gpt-one", "claude-one", "gemini-one", "gpt-azure", "gpt-dear", "azure/gpt-one"]);
    let first = stage.chat(hello("gpt-one")).await.expect_status(200);
    assert_eq!(first.at("/provider"), "openai", "a name alone is the first provider's");
    let second = stage.chat(hello("azure/gpt-one")).await.expect_status(200);
    assert_eq!(second.at("/provider"), "azure");
    stage.settled(3).await;
    let metrics = stage.app.metrics().send().await.expect_status(200);
    assert!(metrics.text.contains("ai_attempts_total{gen_ai_provider_name=\"azure\"} 2"), "{}", metrics.text);
    for path in ["/api/ai/usage", "/api/models"] {
        let unknown = stage.app.get(&format!("{path}?provider=mistral")).bearer(&stage.ada).send().await;
        unknown.expect_problem(422, "invalid");
    }
}

#[tokio::test]
async fn a_provider_of_the_same_dialect_answers_a_native_call_as_it_came() {
    let stage = Stage::with(|settings| {
        add(settings, KEY);
        settings.ai.fallbacks = BTreeMap::from([("gpt-one".to_owned(), vec!["azure/gpt-one".to_owned()])]);
        settings.ai.openai.api_key = SecretText::new("");
        settings.ai.sandbox = SandboxMode::Off;
        settings.ai.openai.max_attempts = 1;
    })
    .await;
    let mut body = hello_in_dialect("gpt-one");
    body["unheard_of"] = json!({ "z": [1.50, null] });
    let refused = by_dialect(&stage, "/v1/chat/completions", body.clone()).await.expect_status(503);
    assert!(refused.text.contains("PB__AI__OPENAI__API_KEY"), "{refused}");
    body["model"] = json!("azure/gpt-one");
    let answer = by_dialect(&stage, "/v1/chat/completions", body.clone()).await.expect_status(200);
    let sent = stage.upstream.requests().last().unwrap().json().unwrap();
    assert_eq!((&sent["unheard_of"], &sent["model"]), (&body["unheard_of"], &json!("gpt-one")), "{answer}");
    stage.upstream.script("gpt-one", Script::refuses(Refusal::of(Why::Invalid("not like this".to_owned()))));
    let in_its_words = by_dialect(&stage, "/v1/chat/completions", body).await.expect_status(400);
    assert_eq!(in_its_words.text_at("/error/message"), "not like this");
}

#[tokio::test]
async fn without_a_key_the_missing_setting_is_named() {
    let stage = Stage::with(|settings| {
        add(settings, "");
        settings.ai.sandbox = SandboxMode::Off;
    })
    .await;
    let refused = stage.chat(hello("gpt-azure")).await.expect_problem(503, "provider_key_missing");
    assert!(refused.text_at("/detail").contains("PB__AI__PROVIDERS__AZURE__API_KEY"), "{refused}");
    stage.settled(0).await;
}
