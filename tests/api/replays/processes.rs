//! Replays across several processes, also when one of them is gone.

use std::time::Duration;

use testkit::upstream::{Fault, Script};

use super::stage::{Ask, Stage, anthropic, asked, expect_replay, openai, ours};

/// The state that a dead process leaves: a call without a response, whose reservation has had this status for a while.
async fn leave_behind(stage: &Stage, hold_status: &str, seconds: i64) {
    stage
        .app
        .database()
        .sql(&format!(
            "UPDATE ai_answers SET status = NULL, content_type = NULL, sealed_body = NULL;
             ALTER TABLE usage_reservations DISABLE TRIGGER USER;
             UPDATE usage_reservations SET status = '{hold_status}', updated_at = now() - interval '{seconds} seconds';
             ALTER TABLE usage_reservations ENABLE TRIGGER USER"
        ))
        .await;
}

#[tokio::test]
async fn two_at_once_on_two_processes_make_one_call() {
    let stage = Stage::new().await;
    let other = stage.beside().await;
    let ways: [Ask; 3] = [openai(false), anthropic(true), ours(true)];
    for (place, ask) in ways.iter().enumerate() {
        let here = asked(&stage.app, ask, &stage.key).idempotency_key("k1").send();
        let there = asked(&other, ask, &stage.key).idempotency_key("k1").send();
        let (here, there) = tokio::join!(here, there);
        if here.header("idempotency-replayed").is_none() {
            expect_replay(&here, &there);
        } else {
            expect_replay(&there, &here);
        }
        stage.expect_calls(u64::try_from(place).unwrap() + 1).await;
    }
    assert_eq!(stage.charged().await, 3);
}

#[tokio::test]
async fn a_repeat_on_another_process_waits_for_the_answer() {
    let stage = Stage::new().await;
    let other = stage.beside().await;
    stage.stub.script("gpt-6-sol", Script::words(20).with_fault(Fault::HoldAfter { events: 5 }));
    let first = tokio::spawn(asked(&stage.app, &openai(true), &stage.key).idempotency_key("k1").send());
    stage.stub.until("for the first call", |stub| stub.held() == 1).await;
    let second = tokio::spawn(asked(&other, &openai(true), &stage.key).idempotency_key("k1").send());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!second.is_finished());
    stage.stub.let_go(1);
    expect_replay(&first.await.unwrap(), &second.await.unwrap());
    stage.expect_calls(1).await;
    assert_eq!(stage.charged().await, 1);
}

#[tokio::test]
async fn a_call_whose_process_is_gone_is_lost_and_not_made_again() {
    let stage = Stage::new().await;
    let other = stage.beside().await;
    stage.keyed(&openai(true), "k1").await.expect_status(200);
    stage.expect_calls(1).await;
    stage.written().await;
    for status in ["settled", "expired"] {
        leave_behind(&stage, status, 60).await;
        let lost = asked(&other, &openai(true), &stage.key).idempotency_key("k1").send().await.expect_status(409);
        assert_eq!((lost.text_at("/error/code"), lost.header("x-should-retry")), ("answer_lost", Some("false")));
    }
    stage.expect_calls(1).await;
    leave_behind(&stage, "released", 60).await;
    asked(&other, &openai(true), &stage.key).idempotency_key("k1").send().await.expect_status(200);
    stage.expect_calls(2).await;
    stage.written().await;
    stage.app.database().sql("UPDATE ai_answers SET status = 413, content_type = NULL, sealed_body = NULL").await;
    let long = asked(&other, &openai(true), &stage.key).idempotency_key("k1").send().await.expect_status(409);
    assert_eq!((long.text_at("/error/code"), long.header("x-should-retry")), ("answer_too_long", Some("false")));
    stage.expect_calls(2).await;
}

#[tokio::test]
async fn a_stop_in_mid_stream_leaves_what_was_told() {
    let stage = Stage::new().await;
    let other = stage.beside().await;
    stage.stub.script("gpt-6-sol", Script::words(20).with_fault(Fault::HoldAfter { events: 5 }));
    let first = tokio::spawn(asked(&other, &openai(true), &stage.key).idempotency_key("k1").send());
    stage.stub.until("for the first call", |stub| stub.held() == 1).await;
    other.stop().await;
    let first = first.await.unwrap();
    assert!(first.text.contains("stopping"), "{first}");
    stage.stub.let_go(1);
    expect_replay(&first, &stage.keyed(&openai(true), "k1").await);
    stage.expect_calls(1).await;
    assert_eq!(stage.charged().await, 1);
}
