//! Streams with pauses, and the use that is logged for calls without any output.

use std::time::Duration;

use app::settings::shape::Settings;
use harness::{TestApp, eventually};
use reqwest::Response;
use serde_json::{Value, json};
use testkit::upstream::{AnswerPace, Fault, Script, Upstream};

use super::asking::{ALL, Dialect};
use super::calls::{allow, events, streamed, streamed_text};
use super::upstream::{user, with};

/// The head is sent soon, and pings follow in quick succession.
fn hurried(settings: &mut Settings) {
    (settings.ai.calls.head_wait_ms, settings.ai.calls.ping_ms) = (20, 10);
    for provider in [&mut settings.ai.openai, &mut settings.ai.claude, &mut settings.ai.gemini] {
        (provider.first_byte_timeout_ms, provider.idle_timeout_ms) = (60_000, 60_000);
    }
}

async fn begun(dialect: Dialect, app: &TestApp, key: &str, path: &str) -> Response {
    let mut body = dialect.body(dialect.own_model(), "Say something.");
    if dialect != Dialect::Gemini {
        body["stream"] = json!(true);
    }
    let request = app.client().post(app.url(path)).json(&body);
    let request = match dialect {
        Dialect::OpenAi => request.bearer_auth(key),
        Dialect::Anthropic => request.header("x-api-key", key).header("anthropic-version", "2023-06-01"),
        Dialect::Gemini => request.header("x-goog-api-key", key),
    };
    request.send().await.unwrap()
}

#[tokio::test]
async fn the_head_and_pings_come_while_the_model_is_silent() {
    let stub = Upstream::start();
    let app = with(&stub, hurried).await;
    let (_, key) = user(&app).await;
    stub.script_others(Script::says("one two").with_fault(Fault::HoldAfter { events: 0 }));
    let array = format!("/v1beta/models/{}:streamGenerateContent", Dialect::Gemini.own_model());
    let sse = format!("{array}?alt=sse");
    for (dialect, path, ping) in [
        (Dialect::OpenAi, Dialect::OpenAi.path(""), ": ping\n\n"),
        (Dialect::Anthropic, Dialect::Anthropic.path(""), "event: ping\ndata: {\"type\": \"ping\"}\n\n"),
        (Dialect::Gemini, sse, "\r\n\r\n"),
        (Dialect::Gemini, array.clone(), "\r\n"),
    ] {
        let mut response = begun(dialect, &app, &key, &path).await;
        assert_eq!(response.status().as_u16(), 200);
        assert!(response.headers().contains_key("x-product-base-call-id"));
        let mut text = String::new();
        while text.matches(ping).count() < 4 {
            text += std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap();
        }
        assert!(!text.contains("one"), "{text}");
        stub.until("the call", |stub| stub.held() == 1).await;
        stub.let_go(1);
        while let Some(chunk) = response.chunk().await.unwrap() {
            text += std::str::from_utf8(&chunk).unwrap();
        }
        let said = if path == array {
            let chunks: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
            streamed_text(dialect, &chunks)
        } else {
            streamed_text(dialect, &events(&text))
        };
        assert_eq!(said, "one two", "{text}");
    }
}

#[tokio::test]
async fn what_fails_after_the_head_is_an_event_and_before_it_a_status() {
    let stub = Upstream::start();
    let app = with(&stub, |settings| {
        hurried(settings);
        for provider in [&mut settings.ai.openai, &mut settings.ai.claude, &mut settings.ai.gemini] {
            provider.first_byte_timeout_ms = 200;
        }
    })
    .await;
    let (_, key) = user(&app).await;
    stub.script_others(Script::fails(Fault::HangBeforeHead));
    for dialect in ALL {
        let late = streamed(dialect, &app, &key, dialect.own_model(), "x").send().await.expect_status(200);
        let told = events(&late.text);
        assert!(told.last().unwrap()["error"].is_object(), "{late}");
    }
    stub.script_others(Script::refuses(testkit::upstream::Refusal::of(testkit::upstream::Why::Invalid("no".into()))));
    for dialect in ALL {
        streamed(dialect, &app, &key, dialect.own_model(), "x").send().await.expect_status(400);
    }
}

#[tokio::test]
async fn a_stream_that_flows_has_no_total_bound() {
    let stub = Upstream::start();
    let pace = AnswerPace { between: Duration::from_millis(30), ..AnswerPace::default() };
    stub.script_others(Script::words(12).paced(pace));
    let app = with(&stub, |settings| {
        for provider in [&mut settings.ai.openai, &mut settings.ai.claude, &mut settings.ai.gemini] {
            provider.total_timeout_ms = 100;
        }
    })
    .await;
    let (_, key) = user(&app).await;
    for dialect in ALL {
        let answer = streamed(dialect, &app, &key, dialect.own_model(), "x").send().await.expect_status(200);
        assert!(!answer.text.contains("\"error\""), "{answer}");
    }
}

/// `(input, output, source, outcome)` of the logged calls, once there are this many.
async fn booked(app: &TestApp, calls: i64) -> Vec<(i64, i64, String, String)> {
    let sql = "SELECT input_tokens, output_tokens, source::text, outcome::text FROM ai_usage_logs ORDER BY created_at";
    let count = async || app.database().query_scalar::<i64>("SELECT count(*) FROM ai_usage_logs").await;
    eventually(Duration::from_secs(10), count, |rows| *rows >= calls).await;
    app.database().query_all(sql).await
}

#[tokio::test]
async fn a_call_that_is_not_answered_in_time_is_sent_once_and_booked() {
    let stub = Upstream::start();
    let impatient = |resend: bool| {
        move |settings: &mut Settings| {
            settings.ai.resend_after_timeout = resend;
            settings.ai.fallbacks = [("gpt-6-sol".to_owned(), vec!["claude-sonnet-5".to_owned()])].into();
            for provider in [&mut settings.ai.openai, &mut settings.ai.claude, &mut settings.ai.gemini] {
                provider.max_attempts = 2;
                (provider.first_byte_timeout_ms, provider.total_timeout_ms) = (150, 150);
            }
        }
    };
    stub.script("gpt-6-sol", Script::fails(Fault::HangBeforeHead));
    let app = with(&stub, impatient(false)).await;
    let (ada, key) = user(&app).await;
    allow(&app, &ada, None).await;
    let dialect = Dialect::OpenAi;
    let whole = dialect.ask(&app, &key, "gpt-6-sol").send().await;
    let stream = streamed(dialect, &app, &key, "gpt-6-sol", "Say something.").send().await;
    for answer in [whole, stream] {
        let answer = answer.expect_status(504);
        assert_eq!(answer.header("x-should-retry"), Some("false"), "it would be charged again: {answer}");
    }
    assert_eq!(stub.totals().requests, 2, "each is sent once");
    let rows = booked(&app, 2).await;
    for (input, output, source, outcome) in &rows {
        assert!(*input > 0 && *output == 0, "{rows:?}");
        assert_eq!((source.as_str(), outcome.as_str()), ("partial", "broken"));
    }
    let once = rows[0].0;
    app.stop().await;

    stub.clear();
    let app = with(&stub, impatient(true)).await;
    let (_, key) = user(&app).await;
    let answer = dialect.ask(&app, &key, "gpt-6-sol").send().await.expect_status(200);
    assert!(answer.text.contains("chat.completion"), "{answer}");
    assert_eq!(stub.totals().requests, 3, "twice, and then at the fallback");
    let (input, output, source, outcome) = booked(&app, 1).await.remove(0);
    assert!(input > once * 2 && output > 0, "each that may be billed is booked: {input} of {once}");
    assert_eq!((source.as_str(), outcome.as_str()), ("partial", "ok"));
}
