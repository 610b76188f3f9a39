//! Calls against the stub upstream: responses passed unchanged, translated ones, and the reporting of its errors.

use std::time::Duration;

use app::settings::shape::{SandboxMode, SecretText, Settings};
use harness::{Answer, TestApp, TestUser, eventually};
use serde_json::json;
use testkit::upstream::{AnswerPace, Fault, Refusal, Script, Upstream, Why};

use super::asking::{ALL, Dialect, key_of};
use super::calls::{allow, events, streamed, streamed_text, told_usage, used};

const KEY: &str = "sk-of-the-operator";

/// A service whose three providers are the stub, and a user who may call them.
async fn against(stub: &Upstream) -> (TestApp, TestUser, String) {
    let app = with(stub, |_| {}).await;
    let (ada, key) = user(&app).await;
    (app, ada, key)
}

pub async fn user(app: &TestApp) -> (TestUser, String) {
    let ada = app.signup("ada@example.com").await;
    let key = key_of(app, &ada, &["ai:chat"]).await;
    allow(app, &ada, None).await;
    (ada, key)
}

pub async fn with(stub: &Upstream, change: impl FnOnce(&mut Settings)) -> TestApp {
    stub.accept_only(KEY);
    let urls = [stub.openai_url(), stub.anthropic_url(), stub.gemini_url()];
    TestApp::with(move |settings| {
        let ai = &mut settings.ai;
        for (provider, url) in [&mut ai.openai, &mut ai.claude, &mut ai.gemini].into_iter().zip(urls) {
            provider.base_url = url;
            provider.api_key = SecretText::new(KEY);
            provider.max_attempts = 1;
            provider.first_byte_timeout_ms = 700;
            provider.idle_timeout_ms = 700;
            provider.total_timeout_ms = 1_500;
        }
        change(settings);
    })
    .await
}

/// The stub's response to a direct request, with the number of the other request.
async fn asked_directly(
    stub: &Upstream,
    app: &TestApp,
    dialect: Dialect,
    path: &str,
    body: &serde_json::Value,
) -> String {
    let base = match dialect {
        Dialect::OpenAi => stub.openai_url().trim_end_matches("/v1").to_owned(),
        Dialect::Anthropic => stub.anthropic_url(),
        Dialect::Gemini => stub.gemini_url(),
    };
    let request = app.client().post(format!("{base}{path}")).json(body);
    let request = match dialect {
        Dialect::OpenAi => request.bearer_auth(KEY),
        Dialect::Anthropic => request.header("x-api-key", KEY).header("anthropic-version", "2023-06-01"),
        Dialect::Gemini => request.header("x-goog-api-key", KEY),
    };
    request.send().await.unwrap().text().await.unwrap()
}

/// Without the numbers that distinguish the stub's responses.
fn numberless(text: &str) -> String {
    let mut rest = text;
    let mut kept = String::new();
    while let Some((before, after)) = rest.split_once("stub") {
        kept += before;
        kept += "stub";
        rest = after.trim_start_matches(|character: char| character.is_ascii_digit());
    }
    kept + rest
}

#[tokio::test]
async fn its_own_words_pass_byte_by_byte() {
    let stub = Upstream::start();
    let (app, _, key) = against(&stub).await;
    stub.script_others(Script::says("Grüße 東京, \"so\"!").calling("look", r#"{"at": "é"}"#));
    for dialect in ALL {
        let model = dialect.own_model();
        let mut body = dialect.body(model, "one two");
        body["unheard_of"] = json!({ "z": 1, "a": [1.50, null] });
        let mut asked = vec![(dialect.path(model), body.clone())];
        if dialect == Dialect::Gemini {
            asked.push((format!("/v1beta/models/{model}:streamGenerateContent"), body.clone()));
            asked.push((format!("/v1beta/models/{model}:streamGenerateContent?alt=sse"), body));
        } else {
            body["stream"] = json!(true);
            if dialect == Dialect::OpenAi {
                body["stream_options"] = json!({ "include_usage": true, "include_obfuscation": false });
            }
            asked.push((dialect.path(model), body));
        }
        for (path, body) in asked {
            let passed = dialect.signed(app.post(&path).json(&body), &key).send().await.expect_status(200);
            let sent = stub.requests().last().unwrap().json().unwrap();
            assert_eq!(sent["unheard_of"], body["unheard_of"], "unknown fields pass untouched");
            let direct = asked_directly(&stub, &app, dialect, &path, &body).await;
            assert_eq!(numberless(&passed.text), numberless(&direct), "{path}");
        }
    }
}

#[tokio::test]
async fn pictures_and_headers_pass_to_the_same_provider() {
    let stub = Upstream::start();
    let (app, _, key) = against(&stub).await;
    let image = json!({ "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": "AA==" } });
    let mut body = Dialect::Anthropic.body("claude-sonnet-5", "x");
    body["messages"][0]["content"] = json!([{ "type": "text", "text": "x" }, image]);
    let request = app.post("/v1/messages").json(&body).header("anthropic-beta", "a-2026");
    Dialect::Anthropic.signed(request, &key).send().await.expect_status(200);
    let sent = stub.requests().last().unwrap().clone();
    assert_eq!(sent.json().unwrap()["messages"], body["messages"]);
    assert_eq!((sent.header("anthropic-beta"), sent.header("x-api-key")), (Some("a-2026"), Some(KEY)));
    assert!(!format!("{sent:?}").contains(&key), "the caller's key is not the provider's business");
}

#[tokio::test]
async fn every_dialect_is_translated_into_every_other() {
    let stub = Upstream::start();
    let (app, ada, key) = against(&stub).await;
    stub.script_others(Script::says("Grüße 東京 \"so\"").thinking("hm"));
    let mut calls = 0;
    for dialect in ALL {
        for of in ALL.into_iter().filter(|of| *of != dialect) {
            let model = of.own_model();
            let whole = dialect.ask(&app, &key, model).send().await.expect_status(200);
            let stream = streamed(dialect, &app, &key, model, "Say something.").send().await.expect_status(200);
            calls += 2;
            let events = events(&stream.text);
            let text = streamed_text(dialect, &events);
            // A model's reasoning is shown beside its text, if the provider returns it.
            assert!(text.ends_with("Grüße 東京 \"so\""), "{dialect:?} of {of:?}: {text} in {stream}");
            assert!(whole.text.contains("Grüße 東京 \\\"so\\\""), "{whole}");
            let (input, output) = told_usage(dialect, &whole.body);
            assert!(input == 2 && output >= 3, "{whole}");
            let cost: f64 = whole.header("x-product-base-cost-usd").unwrap().parse().unwrap();
            assert!(cost > 0.0 && stream.header("x-product-base-cost-usd").is_none(), "{whole}");
        }
    }
    assert_eq!(used(&app, &ada).await, calls);
}

#[tokio::test]
async fn what_the_provider_refuses_passes_in_its_words_or_is_told_in_ours() {
    let stub = Upstream::start();
    let (app, ada, key) = against(&stub).await;
    stub.script_others(Script::refuses(Refusal::of(Why::Invalid("the stub was told to refuse".to_owned()))));
    for dialect in ALL {
        for of in ALL {
            let answer = dialect.ask(&app, &key, of.own_model()).send().await;
            let told = if dialect == of { answer.expect_status(400) } else { dialect.expect_error(answer, 400) };
            assert!(told.text_at("/error/message").contains("the stub was told to refuse"), "{told}");
        }
    }
    assert_eq!(used(&app, &ada).await, 0, "what is refused is not charged");
}

#[tokio::test]
async fn what_goes_wrong_at_the_provider_is_told_in_the_dialect() {
    for (script, status, code) in [
        (Script::refuses(Refusal::of(Why::Broken)), 502, "provider_failed"),
        (Script::refuses(Refusal::of(Why::Unauthenticated)), 502, "provider_key_refused"),
        (Script::refuses(Refusal::of(Why::SpendLimit)), 502, "provider_spend_limit"),
        (Script::refuses(Refusal::too_fast(Some(9))), 429, "rate_limit_exceeded"),
        (Script::fails(Fault::HangBeforeHead), 504, "provider_timeout"),
        (Script::fails(Fault::ResetBeforeHead), 502, ""),
    ] {
        let stub = Upstream::start();
        let (app, ada, key) = against(&stub).await;
        stub.script_others(script);
        for dialect in [Dialect::OpenAi, Dialect::Gemini] {
            let answer = dialect.ask(&app, &key, dialect.own_model()).send().await;
            // Every time-out is the provider's; Gemini uses another error type for it.
            let answer = if status == 504 { answer.expect_status(504) } else { dialect.expect_error(answer, status) };
            if dialect == Dialect::OpenAi && !code.is_empty() {
                assert_eq!(answer.at("/error/code"), code, "{answer}");
            }
            if code == "rate_limit_exceeded" {
                assert!(answer.header("retry-after").is_some(), "{answer}");
            }
            assert!(!answer.text.contains(KEY), "{answer}");
        }
        // A provider that was working when the time-out occurred may bill its work.
        let charged = if code == "provider_timeout" { 2 } else { 0 };
        assert_eq!(used(&app, &ada).await, charged, "{code}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_ends_with_the_error_of_the_dialect() {
    let stub = Upstream::start();
    let (app, _, key) = against(&stub).await;
    stub.script_others(
        Script::words(40).with_fault(Fault::ErrorAfter { events: 9, refusal: Refusal::of(Why::Overloaded) }),
    );
    for dialect in ALL {
        for of in ALL {
            let answer = streamed(dialect, &app, &key, of.own_model(), "x").send().await.expect_status(200);
            let events = events(&answer.text);
            let last = events.last().unwrap_or_else(|| panic!("no event: {answer}"));
            assert!(last["error"].is_object(), "{dialect:?} of {of:?}: {answer}");
            assert!(!streamed_text(dialect, &events).is_empty(), "{answer}");
            assert!(!answer.text.contains("[DONE]") && !answer.text.contains("message_stop"), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_bound_is_lowered_where_it_is_asked_for_and_told() {
    let stub = Upstream::start();
    let (app, ada, _) = against(&stub).await;
    let limits = json!({ "monthly_cost_usd": "0.02" });
    let body = json!({ "name": "k", "permissions": ["ai:chat"], "limits": limits });
    let made = app.post("/api/keys").bearer(&ada).json(body).send().await.expect_status(201);
    let key = made.text_at("/key").to_owned();
    let mut body = Dialect::OpenAi.body("gpt-6-sol", "x");
    body["max_completion_tokens"] = json!(100_000);
    let ask = || app.post("/v1/chat/completions").bearer(&key).json(&body);
    Dialect::OpenAi.expect_error(ask().send().await, 429);
    let lowered = ask().header("X-Product-Base-Lower-Max-Tokens", "true").send().await.expect_status(200);
    let bound: u64 = lowered.header("x-product-base-max-tokens").unwrap().parse().unwrap();
    assert!((16..2_100).contains(&bound), "{lowered}");
    assert_eq!(stub.requests().last().unwrap().json().unwrap()["max_completion_tokens"], bound);
}

#[tokio::test]
async fn an_answer_may_take_longer_than_a_request_of_the_house() {
    let stub = Upstream::start();
    let pace = AnswerPace {
        before_head: Duration::from_millis(1_300),
        between: Duration::from_millis(300),
        ..AnswerPace::default()
    };
    stub.script_others(Script::words(5).paced(pace));
    let app = with(&stub, |settings| {
        settings.server.request_timeout_seconds = 1;
        for provider in [&mut settings.ai.openai, &mut settings.ai.claude, &mut settings.ai.gemini] {
            provider.first_byte_timeout_ms = 5_000;
            provider.total_timeout_ms = 10_000;
        }
    })
    .await;
    let (ada, key) = user(&app).await;
    for dialect in ALL {
        let answer = streamed(dialect, &app, &key, dialect.own_model(), "x").send().await.expect_status(200);
        assert!(!answer.text.contains("\"error\""), "{answer}");
        dialect.ask(&app, &key, dialect.own_model()).send().await.expect_status(200);
    }
    assert_eq!(used(&app, &ada).await, 6);
}

#[tokio::test]
async fn who_hangs_up_in_the_middle_is_billed_once() {
    let stub = Upstream::start();
    let pace = AnswerPace { between: Duration::from_millis(20), ..AnswerPace::default() };
    stub.script_others(Script::words(50).paced(pace));
    let (app, ada, key) = against(&stub).await;
    for dialect in ALL {
        let mut body = dialect.body(dialect.own_model(), "x");
        let path = match dialect {
            Dialect::OpenAi | Dialect::Anthropic => {
                body["stream"] = json!(true);
                dialect.path("")
            }
            Dialect::Gemini => format!("/v1beta/models/{}:streamGenerateContent", dialect.own_model()),
        };
        let request = app.client().post(app.url(&path)).json(&body).header("authorization", format!("Bearer {key}"));
        let mut response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        assert!(response.chunk().await.unwrap().is_some());
        drop(response);
    }
    let counted = async || format!("{} used, {} held", used(&app, &ada).await, reserved(&app, &ada).await);
    eventually(Duration::from_secs(10), counted, |seen| seen == "3 used, 0 held").await;
}

async fn reserved(app: &TestApp, user: &TestUser) -> i64 {
    let path = "/api/users/me/features/ai_requests?consistency=strong";
    app.get(path).bearer(user).send().await.expect_status(200).at("/reserved").as_i64().unwrap()
}

#[tokio::test]
async fn a_provider_without_a_key_is_told_with_its_setting() {
    let app = TestApp::with(|settings| settings.ai.sandbox = SandboxMode::Off).await;
    let (ada, key) = user(&app).await;
    for (dialect, setting) in ALL.into_iter().zip(["OPENAI", "CLAUDE", "GEMINI"]) {
        let answer: Answer = dialect.ask(&app, &key, dialect.own_model()).send().await;
        let answer = dialect.expect_error(answer, 503);
        assert!(answer.text_at("/error/message").contains(setting), "{answer}");
        assert_eq!(answer.header("x-should-retry"), Some("false"), "{answer}");
    }
    assert_eq!(used(&app, &ada).await, 0);
}
