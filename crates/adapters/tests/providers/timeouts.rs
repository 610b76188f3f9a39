//! Providers that are slow, silent or down, and callers that disconnect.

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::ai::{Dialect, ProviderId, ProviderProfile};
use futures_util::StreamExt;
use ports::ai::{AiProvider, CommentSink, ProviderFault, ProviderWait};
use product_base_adapters::ai::{AccessRefused, HttpProvider, ProviderAccess, ProviderTimeouts};
use product_base_adapters::clock::SystemClock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use testkit::upstream::{AnswerPace, BillEnding, Fault, PieceSplit, Script, Upstream};

use crate::asking::{TIMEOUTS, ask, body_of, hold, native, provider, with_timeouts};

const SHORT: Duration = Duration::from_millis(150);

#[tokio::test]
async fn each_wait_has_an_end() {
    let stub = Upstream::start();
    let first = ProviderTimeouts { first_byte: SHORT, ..TIMEOUTS };
    let idle = ProviderTimeouts { idle: SHORT, ..TIMEOUTS };
    let total = ProviderTimeouts { total: SHORT, ..TIMEOUTS };
    for of in Dialect::ALL {
        for (timeouts, streamed, script, expected) in [
            (first, true, Script::fails(Fault::HangBeforeHead), ProviderWait::FirstByte),
            (first, true, Script::fails(Fault::HangAfter { bytes: 0 }), ProviderWait::FirstByte),
            (idle, true, Script::fails(Fault::HangAfter { bytes: 900 }), ProviderWait::Rest),
            (total, false, Script::fails(Fault::HangBeforeHead), ProviderWait::FirstByte),
            (idle, false, Script::fails(Fault::HangAfter { bytes: 40 }), ProviderWait::Rest),
        ] {
            stub.script("m", script.clone());
            let provider = with_timeouts(&stub, of, timeouts);
            let started = Instant::now();
            let got = ask(&provider, &native(of, body_of(of), streamed)).await;
            assert_eq!(got.fault, Some(ProviderFault::TimedOut(expected)), "{of} {streamed} {:?}", script.fault);
            assert!(started.elapsed() >= SHORT && started.elapsed() < Duration::from_secs(5));
        }
    }
    stub.until("for all to be left", |stub| stub.totals().answering == 0).await;
}

#[tokio::test]
async fn a_stream_that_flows_has_no_total_bound() {
    let stub = Upstream::start();
    let pace = AnswerPace { between: Duration::from_millis(15), ..AnswerPace::default() };
    stub.script("m", Script::words(20).paced(pace));
    let hurried = ProviderTimeouts { total: SHORT, ..TIMEOUTS };
    for of in Dialect::ALL {
        let started = Instant::now();
        ask(&with_timeouts(&stub, of, hurried), &native(of, body_of(of), true)).await.is_whole();
        assert!(started.elapsed() > SHORT, "{of}");
    }
}

struct Heard(tokio::sync::mpsc::UnboundedSender<Vec<u8>>);

impl CommentSink for Heard {
    fn comment(&self, bytes: Vec<u8>) {
        self.0.send(bytes).unwrap();
    }
}

/// A provider that sends comments while it works, and replies when the test signals it.
#[tokio::test]
async fn comments_are_heard_before_the_answer_and_none_is_lost() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
    let (go_on, told) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut request = [0; 4_096];
        assert!(connection.read(&mut request).await.unwrap() > 0);
        let head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n: AT WORK\n\n";
        connection.write_all(head).await.unwrap();
        told.await.unwrap();
        let answer =
            b": STILL\n\ndata: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\
            \"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
        connection.write_all(answer).await.unwrap();
    });
    let access = ProviderAccess::of(&base_url, "the-key");
    let provider = HttpProvider::new(ProviderProfile::OPENAI, access, TIMEOUTS, Arc::new(SystemClock)).unwrap();
    let (sender, mut comments) = tokio::sync::mpsc::unbounded_channel();
    let call = native(Dialect::OpenAiChat, body_of(Dialect::OpenAiChat), true);
    let sending =
        tokio::spawn(async move { provider.send_with_comments(hold(), &call, Arc::new(Heard(sender))).await });
    assert_eq!(comments.recv().await.unwrap(), b": AT WORK\n\n");
    assert!(!sending.is_finished(), "a comment promises nothing");
    go_on.send(()).unwrap();
    let Ok(reply) = sending.await.unwrap() else { panic!("it is answered") };
    assert_eq!(comments.recv().await.unwrap(), b": STILL\n\n");
    let frames: Vec<u8> = reply.pieces.map(|piece| piece.unwrap().frame).concat().await;
    assert!(frames.starts_with(b"data: {\"id\"") && frames.ends_with(b"data: [DONE]\n\n"), "{frames:?}");
}

#[tokio::test]
async fn what_is_slow_but_comes_is_no_fault() {
    let stub = Upstream::start();
    let pace = AnswerPace {
        between: Duration::from_millis(10),
        split: PieceSplit::Every(100),
        first_token: SHORT,
        ..AnswerPace::default()
    };
    stub.script("m", Script::words(5).paced(pace));
    let patient = ProviderTimeouts { idle: SHORT, ..TIMEOUTS };
    for of in Dialect::ALL {
        for streamed in [false, true] {
            ask(&with_timeouts(&stub, of, patient), &native(of, body_of(of), streamed)).await.is_whole();
        }
    }
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let access = ProviderAccess::of(&base_url, "the-key");
    let provider = HttpProvider::new(ProviderProfile::CLAUDE, access, TIMEOUTS, Arc::new(SystemClock)).unwrap();
    let got = ask(&provider, &native(Dialect::Anthropic, body_of(Dialect::Anthropic), true)).await;
    let Some(ProviderFault::Unreachable(why)) = got.fault else { panic!("{:?}", got.fault) };
    assert!(!why.contains("the-key") && !why.contains("127.0.0.1"), "{why}");
}

#[tokio::test]
async fn a_network_that_swallows_is_given_up() {
    // The address is reserved (RFC 5737). A machine without a route to it fails at once, which is fine too.
    let access = ProviderAccess::of("http://192.0.2.1:9", "the-key");
    let timeouts = ProviderTimeouts { connect: SHORT, ..TIMEOUTS };
    let provider = HttpProvider::new(ProviderProfile::OPENAI, access, timeouts, Arc::new(SystemClock)).unwrap();
    let started = Instant::now();
    let got = ask(&provider, &native(Dialect::OpenAiChat, body_of(Dialect::OpenAiChat), false)).await;
    let is_given_up = matches!(
        got.fault,
        Some(
            ProviderFault::TimedOut(ProviderWait::Connection)
                | ProviderFault::Unreachable(_)
                | ProviderFault::Failed { .. }
        )
    );
    assert!(is_given_up, "{:?}", got.fault);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn who_drops_the_pieces_cancels_the_call() {
    let stub = Upstream::start();
    for of in Dialect::ALL {
        stub.clear();
        stub.script("m", Script::words(50).with_fault(Fault::HoldAfter { events: 6 }));
        let reply = provider(&stub, of).send(hold(), &native(of, body_of(of), true)).await;
        let Ok(mut reply) = reply else { panic!("{of}") };
        assert!(reply.pieces.next().await.unwrap().is_ok());
        stub.until("for the hold", |stub| stub.held() == 1).await;
        drop(reply.pieces);
        assert_eq!(stub.settled(1).await[0].ending, BillEnding::ClientLeft, "{of}");
    }
}

#[test]
fn an_access_that_cannot_work_is_refused() {
    let new = |base_url, api_key| {
        HttpProvider::new(
            ProviderProfile::OPENAI,
            ProviderAccess::of(base_url, api_key),
            TIMEOUTS,
            Arc::new(SystemClock),
        )
        .err()
    };
    for url in ["", "api.openai.com", "ftp://x", "mailto:a@b"] {
        assert!(matches!(new(url, "k"), Some(AccessRefused::Url(ProviderId::OPENAI))), "{url}");
    }
    assert!(matches!(new("https://x/v1/", "a\nb"), Some(AccessRefused::Key(ProviderId::OPENAI))));
    assert!(new("https://x/v1/", "k").is_none());
}
