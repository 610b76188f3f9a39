//! Fallbacks of calls in a provider's dialect.

use serde_json::json;
use testkit::upstream::{Refusal, Script, Upstream, Why};

use super::asking::{ALL, Dialect};
use super::calls::{events, said, streamed, streamed_text, told_usage};
use super::upstream::{user, with};

/// The two other models as fallbacks of each dialect's own model.
fn others() -> std::collections::BTreeMap<String, Vec<String>> {
    let of = |dialect: Dialect| {
        let others = ALL.into_iter().filter(|other| *other != dialect).map(|other| other.own_model().to_owned());
        (dialect.own_model().to_owned(), others.collect())
    };
    ALL.into_iter().map(of).collect()
}

#[tokio::test]
async fn a_native_call_falls_back_to_other_dialects() {
    let stub = Upstream::start();
    let app = with(&stub, |settings| settings.ai.fallbacks = others()).await;
    let (_, key) = user(&app).await;
    stub.script_others(Script::says("Grüße 東京"));
    for dialect in ALL {
        stub.script(dialect.own_model(), Script::refuses(Refusal::of(Why::Unavailable)));
        let whole = dialect.ask(&app, &key, dialect.own_model()).send().await.expect_status(200);
        assert_eq!(said(dialect, &whole), "Grüße 東京");
        let (input, output) = told_usage(dialect, &whole.body);
        assert!(input > 0 && output > 0, "{whole}");
        let stream = streamed(dialect, &app, &key, dialect.own_model(), "Say something.").send().await;
        let told = events(&stream.expect_status(200).text);
        assert_eq!(streamed_text(dialect, &told), "Grüße 東京");
        stub.script(dialect.own_model(), Script::says("Grüße 東京"));
    }
    let array = format!("/v1beta/models/{}:streamGenerateContent", Dialect::Gemini.own_model());
    stub.script(Dialect::Gemini.own_model(), Script::refuses(Refusal::of(Why::Unavailable)));
    let request = app.post(&array).json(Dialect::Gemini.body("", "Say something."));
    let answer = Dialect::Gemini.signed(request, &key).send().await.expect_status(200);
    assert_eq!(streamed_text(Dialect::Gemini, answer.body.as_array().unwrap()), "Grüße 東京");
    let page = app.metrics().send().await.expect_status(200);
    assert!(page.text.contains("ai_fallbacks_total 7\n"), "{page}");
}

#[tokio::test]
async fn a_native_call_falls_back_in_its_own_words_where_it_can() {
    let stub = Upstream::start();
    let app = with(&stub, |settings| {
        settings.ai.fallbacks = [("gpt-6-sol".to_owned(), vec!["gpt-5.4".to_owned()])].into();
    })
    .await;
    let (_, key) = user(&app).await;
    stub.script("gpt-6-sol", Script::refuses(Refusal::of(Why::Unavailable)));
    let mut body = Dialect::OpenAi.body("gpt-6-sol", "x");
    body["unheard_of"] = json!({ "z": 1, "a": [1.50, null] });
    app.post("/v1/chat/completions").bearer(&key).json(&body).send().await.expect_status(200);
    let sent = stub.requests().last().unwrap().json().unwrap();
    assert_eq!((&sent["model"], &sent["unheard_of"]), (&json!("gpt-5.4"), &body["unheard_of"]));
}

#[tokio::test]
async fn a_fallback_that_cannot_be_asked_for_it_is_passed_over() {
    let stub = Upstream::start();
    let app = with(&stub, |settings| settings.ai.fallbacks = others()).await;
    let (_, key) = user(&app).await;
    stub.script("gpt-6-sol", Script::refuses(Refusal::of(Why::Unavailable)));
    let mut body = Dialect::OpenAi.body("gpt-6-sol", "x");
    body["unheard_of"] = json!(1);
    let answer = app.post("/v1/chat/completions").bearer(&key).json(&body).send().await.expect_status(502);
    assert_eq!(answer.text_at("/error/code"), "provider_failed");
    assert_eq!(stub.totals().requests, 1);
    // Embeddings are comparable only within one model, so they have no fallback.
    stub.script("text-embedding-3-small", Script::refuses(Refusal::of(Why::Unavailable)));
    let body = json!({ "model": "text-embedding-3-small", "input": "x" });
    app.post("/v1/embeddings").bearer(&key).json(body).send().await.expect_status(502);
}
