//! SDKs, which send no key, and say of a retry that it is one.

use std::time::Duration;

use harness::Request;
use testkit::upstream::{Ending, Fault, Pace, Script};

use super::stage::{Stage, anthropic, asked, expect_replay, key_of, openai};

fn sdk(request: Request, retries: u32) -> Request {
    request.header("x-stainless-lang", "python").header("x-stainless-retry-count", &retries.to_string())
}

#[tokio::test]
async fn a_retry_attaches_to_the_latest_call_of_its_key_path_and_body() {
    let stage = Stage::new().await;
    for ask in [openai(false), anthropic(true)] {
        stage.stub.clear();
        let earlier = sdk(stage.ask(&ask), 0).send().await.expect_status(200);
        let latest = sdk(stage.ask(&ask), 0).send().await.expect_status(200);
        assert_eq!(latest.header("idempotency-replayed"), None, "twice the same is two calls");
        assert_ne!(earlier.header("x-product-base-call-id"), latest.header("x-product-base-call-id"));
        expect_replay(&latest, &sdk(stage.ask(&ask), 1).send().await);
        stage.written().await;
        expect_replay(&latest, &sdk(stage.ask(&ask), 2).send().await);
        stage.expect_calls(2).await;
    }
    assert_eq!(stage.charged().await, 4);
    let minutes = "ai_answers WHERE expires_at BETWEEN now() + interval '9 minutes' AND now() + interval '10 minutes'";
    assert_eq!(stage.count(minutes).await, 2);
}

#[tokio::test]
async fn a_retry_without_a_call_to_attach_to_is_one() {
    let stage = Stage::new().await;
    let ask = openai(false);
    sdk(stage.ask(&ask), 0).send().await.expect_status(200);
    let fresh = async |request: Request| {
        let answer = request.send().await.expect_status(200);
        assert_eq!(answer.header("idempotency-replayed"), None, "{answer}");
    };
    let other_key = key_of(&stage.app, &stage.ada).await;
    fresh(sdk(asked(&stage.app, &ask, &other_key), 1)).await;
    fresh(sdk(asked(&stage.app, &ask, &stage.ada.access_token), 1)).await;
    let mut other = ask.clone();
    other.body["temperature"] = 0.5.into();
    fresh(sdk(stage.ask(&other), 1)).await;
    stage.written().await;
    stage.app.database().sql("UPDATE ai_answers SET expires_at = now()").await;
    fresh(sdk(stage.ask(&ask), 1)).await;
    stage.expect_calls(5).await;
    assert_eq!(stage.charged().await, 5);
}

#[tokio::test]
async fn who_is_no_sdk_and_sends_no_key_is_not_kept() {
    let stage = Stage::new().await;
    let first = stage.ask(&openai(false)).send().await.expect_status(200);
    let second = stage.ask(&openai(false)).send().await.expect_status(200);
    assert_ne!(first.header("x-product-base-call-id"), second.header("x-product-base-call-id"));
    stage.expect_calls(2).await;
    assert_eq!(stage.count("ai_answers").await, 0);
}

#[tokio::test]
async fn a_key_goes_before_what_the_sdk_says() {
    let stage = Stage::new().await;
    let first = sdk(stage.ask(&openai(true)), 0).idempotency_key("k1").send().await.expect_status(200);
    expect_replay(&first, &sdk(stage.ask(&openai(true)), 0).idempotency_key("k1").send().await);
    stage.expect_calls(1).await;
}

#[tokio::test]
async fn an_sdk_that_lost_patience_gets_the_answer_of_its_first_try() {
    let stage = Stage::new().await;
    let pace = Pace { before_head: Duration::from_millis(600), ..Pace::default() };
    stage.stub.script_others(Script::words(9).paced(pace));
    for (ask, calls) in [(openai(false), 1), (openai(true), 2), (anthropic(true), 3)] {
        let client = stage.app.client().post(stage.app.url(ask.path)).bearer_auth(&stage.key).json(&ask.body);
        let gone = client.header("x-stainless-retry-count", "0").timeout(Duration::from_millis(250)).send().await;
        assert!(gone.unwrap_err().is_timeout());
        let again = sdk(stage.ask(&ask), 1).send().await.expect_status(200);
        assert_eq!(again.header("idempotency-replayed"), Some("true"), "{again}");
        stage.expect_calls(calls).await;
        let unfinished = stage.stub.bill().iter().filter(|line| line.ending != Ending::Finished).count();
        assert_eq!((unfinished, stage.charged().await), (0, i64::try_from(calls).unwrap()));
    }
}

#[tokio::test]
async fn a_stream_that_its_sdk_left_is_not_made_a_second_time() {
    let stage = Stage::new().await;
    stage.stub.script("gpt-6-sol", Script::words(400).with_fault(Fault::HoldAfter { events: 5 }));
    let ask = openai(true);
    let client = stage.app.client().post(stage.app.url(ask.path)).bearer_auth(&stage.key).json(&ask.body);
    let mut left = client.header("x-stainless-retry-count", "0").send().await.unwrap();
    left.chunk().await.unwrap().expect("the first words");
    stage.stub.until("for the call", |stub| stub.held() == 1).await;
    drop(left);
    tokio::time::sleep(Duration::from_millis(100)).await;
    stage.stub.let_go(2);
    stage.written().await;
    let lost = sdk(stage.ask(&ask), 1).send().await.expect_status(409);
    assert_eq!((lost.text_at("/error/code"), lost.header("x-should-retry")), ("answer_lost", Some("false")));
    stage.expect_calls(1).await;
    sdk(stage.ask(&ask), 0).send().await.expect_status(200);
    stage.expect_calls(2).await;
}
