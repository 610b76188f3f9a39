//! SDKs, which send no idempotency key, but mark their retries.

use std::time::Duration;

use harness::{Answer, Request, eventually};
use testkit::upstream::{AnswerPace, BillEnding, Fault, Refusal, Script, Why};

use super::stage::{Ask, Stage, anthropic, asked, expect_replay, key_of, openai};

fn sdk(request: Request, retries: u32) -> Request {
    request.header("x-stainless-lang", "python").header("x-stainless-retry-count", &retries.to_string())
}

/// A request of an SDK whose client disconnects by itself after a while.
async fn impatient(stage: &Stage, ask: &Ask, retries: u32, patience: Duration) {
    let client = stage.app.client().post(stage.app.url(ask.path)).bearer_auth(&stage.key).json(&ask.body);
    let gone = client.header("x-stainless-retry-count", retries.to_string()).timeout(patience).send().await;
    assert!(gone.unwrap_err().is_timeout());
}

fn call_id(answer: &Answer) -> String {
    answer.header("x-product-base-call-id").unwrap().to_owned()
}

#[tokio::test]
async fn an_answer_that_was_delivered_is_nobody_elses() {
    let stage = Stage::new().await;
    for (ask, calls) in [(openai(false), 4), (openai(true), 8), (anthropic(true), 12)] {
        let mut seen = Vec::new();
        // Two workers; both retry, although their calls did not fail here.
        for retries in [0, 0, 1, 2] {
            let answer = sdk(stage.ask(&ask), retries).send().await.expect_status(200);
            assert_eq!(answer.header("idempotency-replayed"), None, "{answer}");
            seen.push(call_id(&answer));
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 4, "each is a call of its own");
        stage.expect_calls(calls).await;
    }
    assert_eq!((stage.charged().await, stage.count("ai_answers").await), (12, 0), "and nothing is kept of them");
}

#[tokio::test]
async fn a_retry_after_a_failure_is_a_call_of_its_own() {
    let stage = Stage::new().await;
    let ask = openai(false);
    stage.stub.script_next(1, "gpt-6-sol", Script::refuses(Refusal::of(Why::Broken)));
    sdk(stage.ask(&ask), 0).send().await.expect_status(502);
    let of_another = sdk(stage.ask(&ask), 0).send().await.expect_status(200);
    let again = sdk(stage.ask(&ask), 1).send().await.expect_status(200);
    assert_eq!(again.header("idempotency-replayed"), None, "{again}");
    assert_ne!(call_id(&of_another), call_id(&again));
    stage.expect_calls(3).await;
    assert_eq!(stage.charged().await, 2);
}

#[tokio::test]
async fn samples_that_are_asked_for_at_once_are_as_many_calls() {
    let stage = Stage::new().await;
    let pace = AnswerPace { before_head: Duration::from_millis(100), ..AnswerPace::default() };
    stage.stub.script_others(Script::words(9).paced(pace));
    let ask = openai(false);
    let samples = (0..10).map(|number| sdk(stage.ask(&ask), number % 3).send());
    let answers = futures_util::future::join_all(samples).await;
    let mut seen: Vec<String> = answers.into_iter().map(|answer| call_id(&answer.expect_status(200))).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 10);
    stage.expect_calls(10).await;
    assert_eq!(stage.charged().await, 10);
}

#[tokio::test]
async fn of_clients_that_left_each_retry_gets_another_call() {
    let stage = Stage::new().await;
    let other = stage.beside().await;
    let pace = AnswerPace { before_head: Duration::from_millis(900), ..AnswerPace::default() };
    stage.stub.script_others(Script::words(9).paced(pace));
    let ask = openai(true);
    let patience = Duration::from_millis(300);
    let stays = tokio::spawn(sdk(stage.ask(&ask), 0).send());
    tokio::join!(impatient(&stage, &ask, 0, patience), impatient(&stage, &ask, 0, patience));
    stage.kept(2).await;
    // One where the calls run, and one on another process. A third finds no abandoned call.
    let (here, there) = tokio::join!(sdk(stage.ask(&ask), 1).send(), sdk(asked(&other, &ask, &stage.key), 1).send());
    let third = sdk(stage.ask(&ask), 1).send().await.expect_status(200);
    let stays = stays.await.unwrap().expect_status(200);
    for adopted in [&here, &there] {
        assert_eq!((adopted.status, adopted.header("idempotency-replayed")), (200, Some("true")), "{adopted}");
    }
    let mut seen = [call_id(&here), call_id(&there), call_id(&third), call_id(&stays)];
    seen.sort_unstable();
    assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "{seen:?}");
    stage.expect_calls(4).await;
    assert_eq!(stage.charged().await, 4);
    stage.kept(0).await;
}

#[tokio::test]
async fn a_retry_that_leaves_too_leaves_the_call_to_the_next_one() {
    let stage = Stage::new().await;
    let other = stage.beside().await;
    let pace = AnswerPace { before_head: Duration::from_millis(900), ..AnswerPace::default() };
    stage.stub.script_others(Script::words(9).paced(pace));
    let ask = openai(false);
    impatient(&stage, &ask, 0, Duration::from_millis(200)).await;
    impatient(&stage, &ask, 1, Duration::from_millis(300)).await;
    stage.kept(1).await;
    let minutes = "ai_answers WHERE expires_at BETWEEN now() + interval '9 minutes' AND now() + interval '10 minutes'";
    stage.expect_calls(1).await;
    eventually(Duration::from_secs(10), async || stage.count(minutes).await, |kept| *kept == 1).await;
    // Its response is stored now, and another process returns it.
    let last = sdk(asked(&other, &ask, &stage.key), 2).send().await.expect_status(200);
    assert_eq!(last.header("idempotency-replayed"), Some("true"), "{last}");
    stage.kept(0).await;
    let next = sdk(stage.ask(&ask), 2).send().await.expect_status(200);
    assert_eq!(next.header("idempotency-replayed"), None, "it was delivered: {next}");
    stage.expect_calls(2).await;
    assert_eq!(stage.charged().await, 2);
}

#[tokio::test]
async fn a_retry_finds_only_what_was_left_by_its_key_path_and_body() {
    let stage = Stage::new().await;
    let pace = AnswerPace { before_head: Duration::from_millis(300), ..AnswerPace::default() };
    stage.stub.script_others(Script::words(9).paced(pace));
    let ask = openai(false);
    impatient(&stage, &ask, 0, Duration::from_millis(100)).await;
    stage.kept(1).await;
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
    fresh(sdk(stage.ask(&ask), 0)).await;
    stage.written().await;
    stage.app.database().sql("UPDATE ai_answers SET expires_at = now()").await;
    fresh(sdk(stage.ask(&ask), 1)).await;
    stage.expect_calls(6).await;
    assert_eq!(stage.charged().await, 6);
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
    let pace = AnswerPace { before_head: Duration::from_millis(600), ..AnswerPace::default() };
    stage.stub.script_others(Script::words(9).paced(pace));
    for (ask, calls) in [(openai(false), 1), (openai(true), 2), (anthropic(true), 3)] {
        let client = stage.app.client().post(stage.app.url(ask.path)).bearer_auth(&stage.key).json(&ask.body);
        let gone = client.header("x-stainless-retry-count", "0").timeout(Duration::from_millis(250)).send().await;
        assert!(gone.unwrap_err().is_timeout());
        let again = sdk(stage.ask(&ask), 1).send().await.expect_status(200);
        assert_eq!(again.header("idempotency-replayed"), Some("true"), "{again}");
        stage.expect_calls(calls).await;
        let unfinished = stage.stub.bill().iter().filter(|line| line.ending != BillEnding::Finished).count();
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
