//! Replays by the client's idempotency key.

use std::time::Duration;

use domain::replays::KEPT_BODY_MAX;
use serde_json::json;
use testkit::upstream::{Fault, Refusal, Script, Why};

use super::stage::{Ask, Stage, anthropic, every_way, expect_replay, openai, ours};
use crate::expect_field;

#[tokio::test]
async fn a_call_under_one_key_is_made_and_charged_once_and_answered_byte_for_byte() {
    let stage = Stage::new().await;
    for (place, ask) in every_way().iter().enumerate() {
        let calls = u64::try_from(place).unwrap() + 1;
        let key = format!("k{place}");
        let first = stage.keyed(ask, &key).await.expect_status(200);
        expect_replay(&first, &stage.keyed(ask, &key).await);
        stage.written().await;
        expect_replay(&first, &stage.keyed(ask, &key).await);
        stage.expect_calls(calls).await;
        assert_eq!(stage.charged().await, i64::try_from(calls).unwrap(), "{}", ask.path);
    }
    let kept = stage.count("ai_answers WHERE expires_at = created_at + interval '24 hours'").await;
    assert_eq!(kept, i64::try_from(every_way().len()).unwrap(), "each for a day");
    let other = stage.keyed(&openai(false), "k").await.expect_status(200);
    assert_eq!(other.header("idempotency-replayed"), None);
    stage.expect_calls(u64::try_from(every_way().len()).unwrap() + 1).await;
}

#[tokio::test]
async fn another_body_under_the_same_key_is_refused_in_the_dialect() {
    let stage = Stage::new().await;
    let other = |ask: &Ask| {
        let mut body = ask.body.clone();
        body["temperature"] = json!(0.5);
        Ask { body, ..ask.clone() }
    };
    for ask in [openai(true), anthropic(true), ours(true)] {
        let first = stage.keyed(&ask, "k1").await.expect_status(200);
        for _ in 0..2 {
            let refused = stage.keyed(&other(&ask), "k1").await.expect_status(422);
            match ask.path {
                "/v1/chat/completions" => assert_eq!(refused.text_at("/error/code"), "idempotency_key_reused"),
                "/v1/messages" => assert_eq!(refused.text_at("/error/type"), "invalid_request_error"),
                _ => drop(refused.expect_problem(422, "idempotency_key_reused")),
            }
            stage.written().await;
        }
        expect_replay(&first, &stage.keyed(&ask, "k1").await);
    }
    let sse = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse";
    let array = "/v1beta/models/gemini-2.5-flash:streamGenerateContent";
    stage.keyed(&super::stage::gemini(sse), "k1").await.expect_status(200);
    let refused = stage.keyed(&super::stage::gemini(array), "k1").await.expect_status(422);
    assert_eq!(refused.text_at("/error/status"), "INVALID_ARGUMENT");
    stage.expect_calls(4).await;
    expect_field(stage.keyed(&ours(false), "").await, "Idempotency-Key");
    stage.keyed(&openai(false), &"k".repeat(256)).await.expect_status(400);
}

#[tokio::test]
async fn a_repeat_in_mid_stream_reads_along_from_the_start() {
    let stage = Stage::new().await;
    stage.stub.script("gpt-6-sol", Script::words(20).with_fault(Fault::HoldAfter { events: 5 }));
    let first = stage.begun(&openai(true), "k1").await;
    stage.stub.until("for the first call", |stub| stub.held() == 1).await;
    let mut second = stage.begun(&openai(true), "k1").await;
    assert_eq!(second.headers()["idempotency-replayed"], "true");
    let mut text = second.chunk().await.unwrap().expect("what was said so far").to_vec();
    assert_eq!(stage.stub.held(), 1, "the answer is still under way");
    stage.stub.let_go(1);
    while let Some(chunk) = second.chunk().await.unwrap() {
        text.extend_from_slice(&chunk);
    }
    let text = String::from_utf8(text).unwrap();
    assert_eq!(first.text().await.unwrap(), text);
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    stage.expect_calls(1).await;
    assert_eq!(stage.charged().await, 1);
}

#[tokio::test]
async fn a_call_goes_on_for_its_key_when_its_client_has_gone() {
    let stage = Stage::new().await;
    stage.stub.script("gpt-6-sol", Script::words(20).with_fault(Fault::HoldAfter { events: 5 }));
    for (key, calls) in [("alone", 1), ("followed", 2)] {
        let mut first = stage.begun(&openai(true), key).await;
        first.chunk().await.unwrap().expect("the first words");
        stage.stub.until("for the call", |stub| stub.held() == 1).await;
        drop(first);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let followed = if key == "followed" { Some(stage.begun(&openai(true), key).await) } else { None };
        stage.stub.let_go(1);
        stage.expect_calls(calls).await;
        let again = stage.keyed(&openai(true), key).await.expect_status(200);
        assert!(again.text.ends_with("data: [DONE]\n\n"), "{again}");
        if let Some(followed) = followed {
            assert_eq!(followed.text().await.unwrap(), again.text);
        }
        stage.written().await;
        assert_eq!(stage.keyed(&openai(true), key).await.text, again.text);
    }
    let left = stage.stub.bill().iter().filter(|line| line.ending != testkit::upstream::BillEnding::Finished).count();
    assert_eq!((left, stage.charged().await), (0, 2));
}

/// At the size limit for stored responses, which applies to the whole body.
#[tokio::test]
async fn an_answer_is_kept_up_to_four_mebibytes() {
    let stage = Stage::new().await;
    for (key, bytes) in [("fits", KEPT_BODY_MAX - 1_024), ("too long", KEPT_BODY_MAX + 1)] {
        stage.stub.script("gpt-6-sol", Script::says(&"a".repeat(bytes)));
        let first = stage.keyed(&openai(false), key).await.expect_status(200);
        assert!(first.text.len() > bytes, "{} bytes", first.text.len());
        stage.written().await;
        let repeat = stage.keyed(&openai(false), key).await;
        if first.text.len() <= KEPT_BODY_MAX {
            expect_replay(&first, &repeat);
        } else {
            assert_eq!(repeat.expect_status(409).text_at("/error/code"), "answer_too_long");
        }
    }
    stage.expect_calls(2).await;
    assert_eq!(stage.charged().await, 2);
}

#[tokio::test]
async fn what_was_refused_or_failed_claims_no_key() {
    let stage = Stage::new().await;
    let unknown = Ask { body: json!({ "model": "no-such", "messages": [] }), ..openai(false) };
    assert!(stage.keyed(&unknown, "k1").await.status >= 400);
    stage.allow(Some(0)).await;
    for ask in [openai(false), openai(true), ours(true)] {
        let refused = stage.keyed(&ask, "k1").await;
        assert!([402, 429].contains(&refused.status), "{refused}");
    }
    stage.allow(None).await;
    let mut calls = 0;
    for (key, ask) in [("k1", openai(false)), ("k2", openai(true)), ("k1", ours(true))] {
        for fault in [
            Fault::Refuse(Refusal::of(Why::Invalid("no".to_owned()))),
            Fault::Refuse(Refusal::of(Why::Broken)),
            Fault::ResetBeforeHead,
        ] {
            stage.stub.script_next(1, "gpt-6-sol", Script::fails(fault));
            assert!(stage.keyed(&ask, key).await.status >= 400);
            calls += 1;
        }
        let paid = stage.keyed(&ask, key).await.expect_status(200);
        assert_eq!(paid.header("idempotency-replayed"), None);
        expect_replay(&paid, &stage.keyed(&ask, key).await);
        calls += 1;
    }
    stage.expect_calls(calls).await;
    assert_eq!(stage.charged().await, 3);
    stage.kept(3).await;
}

#[tokio::test]
async fn an_answer_that_broke_off_is_given_again_as_it_was_if_it_was_charged() {
    let stage = Stage::new().await;
    let broken = Refusal::of(Why::Broken);
    stage.stub.script_next(
        1,
        "gpt-6-sol",
        Script::words(20).with_fault(Fault::ErrorAfter { events: 6, refusal: broken }),
    );
    let first = stage.keyed(&openai(true), "k1").await.expect_status(200);
    assert!(first.text.contains("\"error\""), "{first}");
    expect_replay(&first, &stage.keyed(&openai(true), "k1").await);
    stage.written().await;
    expect_replay(&first, &stage.keyed(&openai(true), "k1").await);
    stage.expect_calls(1).await;
    assert_eq!(stage.charged().await, 1);
}

#[tokio::test]
async fn what_is_kept_is_sealed_ends_with_its_time_and_goes_with_its_user() {
    let stage = Stage::new().await;
    stage.stub.script("gpt-6-sol", Script::says("a very secret word"));
    let first = stage.keyed(&openai(false), "k1").await.expect_status(200);
    assert!(first.text.contains("secret"));
    stage.written().await;
    assert_eq!(stage.count("ai_answers WHERE position('secret'::bytea in sealed_body) > 0").await, 0);
    stage.app.database().sql("UPDATE ai_answers SET expires_at = now() - interval '1 second'").await;
    let later = stage.keyed(&openai(false), "k1").await.expect_status(200);
    assert_eq!(later.header("idempotency-replayed"), None);
    stage.expect_calls(2).await;
    stage.written().await;
    assert_eq!(stage.count("ai_answers").await, 1);
    stage.app.delete("/api/users/me").bearer(&stage.ada).send().await.expect_status(204);
    assert_eq!(stage.count("ai_answers").await, 0);
}
