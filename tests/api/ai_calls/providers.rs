//! Failing providers: refusals, retries, fallbacks and circuit breakers; undelivered responses are not charged.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::upstream::{Fault, Refusal, Script, Why};

use super::stage::{MODELS, Stage, hello, prices, said, words};

fn streamed(model: &str) -> Value {
    let mut body = hello(model);
    body["stream"] = json!(true);
    body
}

fn refuses(why: Why) -> Script {
    Script::refuses(Refusal::of(why))
}

/// There is no charge and no reservation.
async fn expect_nothing_charged(stage: &Stage) {
    stage.settled(0).await;
    assert_eq!(stage.number("SELECT coalesce(sum(used), 0)::bigint FROM usage_counters").await, 0);
    stage.expect_in_order().await;
}

#[tokio::test]
async fn what_the_provider_refuses_is_passed_on_once_and_not_charged() {
    let stage = Stage::set().await;
    stage.pays_beyond(0, 5_000).await;
    let mut calls = 0;
    for (provider, model) in MODELS {
        for (why, status, code) in [
            (Why::Invalid("the stub says no".to_owned()), 400, "provider_refused"),
            (Why::NotFound("no such thing".to_owned()), 404, "provider_refused"),
            (Why::TooLarge, 413, "provider_refused"),
            (Why::Unauthenticated, 502, "provider_key_refused"),
            (Why::Unpaid, 502, "provider_spend_limit"),
            (Why::SpendLimit, 502, "provider_spend_limit"),
        ] {
            let is_refusal = code == "provider_refused";
            let message = if let Why::Invalid(message) = &why { message.clone() } else { provider.to_owned() };
            stage.upstream.script(model, refuses(why));
            for body in [hello(model), streamed(model)] {
                let answer = stage.chat(body).await.expect_problem(status, code);
                assert!(!is_refusal || answer.text_at("/detail").contains(&message), "{answer}");
                calls += 1;
            }
        }
    }
    assert_eq!(stage.upstream.totals().requests, calls, "none of it is tried again");
    assert_eq!(stage.available().await, 5_000);
    expect_nothing_charged(&stage).await;
}

#[tokio::test]
async fn what_fails_before_a_word_is_tried_again_and_then_told_without_a_charge() {
    let stage = Stage::with(|settings| {
        settings.ai.breaker_failures = 1_000;
        for provider in [&mut settings.ai.openai, &mut settings.ai.claude, &mut settings.ai.gemini] {
            (provider.first_byte_timeout_ms, provider.total_timeout_ms) = (300, 600);
        }
    })
    .await;
    stage.pays_beyond(0, 5_000).await;
    for (_, model) in MODELS {
        for (script, status, code) in [
            (refuses(Why::Broken), 502, "provider_failed"),
            (refuses(Why::Unavailable), 502, "provider_failed"),
            (refuses(Why::Proxy(502)), 502, "provider_failed"),
            (Script::fails(Fault::ResetBeforeHead), 502, "provider_unreachable"),
            (Script::fails(Fault::CloseBeforeHead), 502, "provider_unreachable"),
            (Script::fails(Fault::Garbage { after_events: 0 }), 502, "provider_bad_response"),
            (Script::fails(Fault::ErrorWith200(Refusal::of(Why::Broken))), 502, "provider_failed"),
            (Script::fails(Fault::WrongContentType("text/html".to_owned())), 502, "provider_bad_response"),
        ] {
            let shown = format!("{model} {:?}", script.fault);
            stage.upstream.script(model, script);
            for body in [hello(model), streamed(model)] {
                stage.upstream.clear();
                let answer = stage.chat(body).await;
                assert_eq!(answer.status, 502, "{shown}: {answer}");
                let told = (answer.status, answer.text_at("/code"));
                let is_broken = told == (502, "provider_bad_response") && code == "provider_unreachable";
                assert!(told == (status, code) || is_broken, "{shown}: {answer}");
                assert_eq!(stage.upstream.totals().requests, 2, "{shown} is tried again");
            }
        }
    }
    assert_eq!(stage.available().await, 5_000);
    expect_nothing_charged(&stage).await;
}

#[tokio::test]
async fn a_second_attempt_and_a_fallback_answer_at_their_own_price() {
    let stage = Stage::with(|settings| {
        settings.ai.fallbacks = [("gpt-one".to_owned(), vec!["claude-one".to_owned(), "gemini-one".to_owned()])].into();
    })
    .await;
    stage.upstream.script_others(Script::words(4).priced(prices()));
    stage.upstream.script("gpt-one", Script::words(4).priced(prices()));
    stage.upstream.script_next(1, "gpt-one", refuses(Why::Unavailable));
    let again = stage.chat(hello("gpt-one")).await.expect_status(200);
    assert_eq!(again.text_at("/model"), "gpt-one");
    stage.upstream.script("gpt-one", refuses(Why::Broken));
    stage.upstream.script("claude-one", refuses(Why::Overloaded));
    let other = stage.chat(hello("gpt-one")).await.expect_status(200);
    assert_eq!((other.text_at("/provider"), other.text_at("/model")), ("gemini", "gemini-one"));
    let events = stage.stream(hello("gpt-one")).await;
    assert_eq!((&events[0].data["model"], said(&events).len() > 3), (&json!("gemini-one"), true));
    stage.expect_bill(3).await;
    let models: Vec<(String, String)> = stage
        .app
        .database()
        .query_all("SELECT provider::text, model::text FROM ai_usage_logs ORDER BY created_at")
        .await;
    assert_eq!(models[1], ("gemini".to_owned(), "gemini-one".to_owned()), "{models:?}");
    stage.upstream.script("gpt-one", refuses(Why::Invalid("no".to_owned())));
    stage.chat(hello("gpt-one")).await.expect_problem(400, "provider_refused");
    let page = stage.app.metrics().send().await.expect_status(200);
    for line in [
        "ai_fallbacks_total 2\n",
        "ai_retries_total{gen_ai_provider_name=\"openai\"} 3\n",
        "ai_attempts_total{gen_ai_provider_name=\"gcp.gemini\"} 2\n",
        "ai_breaker_open{gen_ai_provider_name=\"anthropic\"} 0\n",
    ] {
        assert!(page.text.contains(line), "expected {line}in {page}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_billed_as_far_as_it_came() {
    let stage = Stage::with(|settings| {
        settings.ai.breaker_failures = 1_000;
        for provider in [&mut settings.ai.openai, &mut settings.ai.claude, &mut settings.ai.gemini] {
            provider.idle_timeout_ms = 400;
        }
    })
    .await;
    let faults = [
        Fault::ErrorAfter { events: 5, refusal: Refusal::of(Why::Overloaded) },
        Fault::EndAfter { events: 5 },
        Fault::Garbage { after_events: 5 },
        Fault::HoldAfter { events: 5 },
    ];
    let mut calls = 0;
    for (_, model) in MODELS {
        for fault in faults.clone() {
            let shown = format!("{model} {fault:?}");
            stage.upstream.clear();
            stage.upstream.script(model, Script::says(&words(12)).priced(prices()).with_fault(fault));
            let events = stage.stream(hello(model)).await;
            calls += 1;
            let error = events.last().unwrap();
            assert_eq!(error.name, "error", "{shown}: {events:?}");
            let status = error.data["status"].as_u64().unwrap();
            assert!([502, 503, 504].contains(&status), "{shown}: {error:?}");
            assert!(!said(&events).is_empty(), "{shown}");
            stage.settled(calls).await;
            let (_, output, cost, source, outcome) = stage.books().await.pop().unwrap();
            let line = stage.upstream.settled(1).await.remove(0);
            assert_eq!((source.as_str(), outcome.as_str(), cost > 0), ("partial", "broken", true), "{shown}");
            assert_eq!(u64::try_from(output).unwrap(), line.usage.output(), "{shown}");
        }
    }
    stage.expect_in_order().await;
}

/// A stream that breaks off before the first word is not charged, even after its head; unless the provider was still
/// working when our timeout ended the call, and may bill it.
#[tokio::test]
async fn a_stream_that_breaks_off_without_a_word_is_charged_where_the_provider_may_bill_it() {
    let stage = Stage::with(|settings| settings.ai.openai.idle_timeout_ms = 300).await;
    for (fault, code) in
        [(Fault::EndAfter { events: 1 }, "provider_bad_response"), (Fault::HoldAfter { events: 1 }, "provider_timeout")]
    {
        stage.upstream.script("gpt-one", Script::words(5).with_fault(fault));
        let response = stage.begin(&stage.ada, hello("gpt-one")).await;
        let text = response.text().await.unwrap();
        assert!(text.contains(code), "{text}");
        if code == "provider_bad_response" {
            expect_nothing_charged(&stage).await;
        }
    }
    stage.settled(1).await;
    let (input, output, cost, source, outcome) = stage.books().await.remove(0);
    assert_eq!((output, source.as_str(), outcome.as_str()), (0, "partial", "broken"));
    assert!(input > 0 && cost > 0, "what went in");
    stage.expect_in_order().await;
}

#[tokio::test]
async fn a_provider_without_a_key_is_named_with_its_setting() {
    let stage = Stage::with(|settings| {
        settings.ai.sandbox = app::settings::shape::SandboxMode::Off;
        settings.ai.claude.api_key = app::settings::shape::SecretText::new("");
    })
    .await;
    for body in [hello("claude-one"), streamed("claude-one")] {
        let refused = stage.chat(body).await.expect_problem(503, "provider_key_missing");
        assert!(refused.text_at("/detail").contains("PB__AI__CLAUDE__API_KEY"), "{refused}");
    }
    expect_nothing_charged(&stage).await;
    stage.chat(hello("gpt-one")).await.expect_status(200);
}

#[tokio::test]
async fn a_provider_that_fails_too_often_rests_and_comes_back() {
    let stage = Stage::with(|settings| {
        (settings.ai.breaker_failures, settings.ai.breaker_open_seconds) = (3, 1);
        // There is only one user.
        settings.ai.breaker_callers = 1;
        settings.ai.openai.max_attempts = 1;
    })
    .await;
    stage.upstream.script("gpt-one", refuses(Why::Broken));
    for _ in 0..3 {
        stage.chat(hello("gpt-one")).await.expect_problem(502, "provider_failed");
    }
    let resting = stage.chat(hello("gpt-one")).await.expect_problem(503, "provider_circuit_open");
    assert!(resting.header("retry-after").is_some());
    assert_eq!(stage.upstream.totals().requests, 3, "it is left alone");
    stage.chat(hello("claude-one")).await.expect_status(200);
    stage.upstream.script("gpt-one", Script::words(3));
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    for _ in 0..3 {
        stage.chat(hello("gpt-one")).await.expect_status(200);
    }
    stage.settled(4).await;
    stage.expect_in_order().await;
}
