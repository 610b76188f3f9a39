//! What is passed on byte for byte: the body to the provider, the frames to the caller.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use domain::ai::{Dialect, ProviderProfile};
use ports::ai::{AiOperation, CallContent};
use product_base_adapters::ai::{HttpProvider, ProviderAccess};
use product_base_adapters::clock::SystemClock;
use serde_json::Value;
use testkit::upstream::{PieceSplit, Script, Upstream, UpstreamRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::asking::{TIMEOUTS, ask, body_of, in_array, native, of_operation, provider};

/// The stub's own response to such a request, with its frames joined.
async fn answered(stub: &Upstream, path: &str, body: &str) -> String {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}{path}", stub.address());
    let headers = [("authorization", "Bearer k"), ("x-goog-api-key", "k"), ("anthropic-version", "2023-06-01")];
    let request = headers.iter().fold(client.post(url), |request, (name, value)| request.header(*name, *value));
    request.body(body.to_owned()).send().await.unwrap().text().await.unwrap()
}

fn last_request(stub: &Upstream) -> UpstreamRequest {
    stub.requests().pop().unwrap()
}

/// Removes the request numbers, since each response contains the number of its request.
fn without_numbers(stub: &Upstream, text: &str) -> String {
    let numbers: Vec<u64> = stub.requests().iter().map(|request| request.number).collect();
    numbers.iter().rev().fold(text.to_owned(), |text, number| text.replace(&format!("stub{number}"), "stub"))
}

fn script() -> Script {
    Script::says("Grüße aus 東京 🦀 \"so\"").thinking("first é").calling("look_up", r#"{"city": "Zürich"}"#)
}

const PATHS: [(Dialect, &str, &str); 3] = [
    (Dialect::OpenAiChat, "/v1/chat/completions", "/v1/chat/completions"),
    (Dialect::Anthropic, "/v1/messages", "/v1/messages"),
    (Dialect::Gemini, "/v1beta/models/m:generateContent", "/v1beta/models/m:streamGenerateContent?alt=sse"),
];

#[tokio::test]
async fn a_reply_is_passed_on_as_it_came() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let stub = Upstream::start();
    for (of, plain_path, stream_path) in PATHS {
        let provider = provider(&stub, of);
        for split in [
            PieceSplit::Events,
            PieceSplit::Joined,
            PieceSplit::Every(1),
            PieceSplit::Every(7),
            PieceSplit::InsideCharacters,
            PieceSplit::InsideLines,
        ] {
            stub.script("m", script().split(split));
            let got = ask(&provider, &native(of, body_of(of), false)).await;
            got.is_whole();
            assert_eq!(last_request(&stub).body, body_of(of).as_bytes(), "{of}: the body goes as it came");
            let expected = answered(&stub, plain_path, body_of(of)).await;
            assert_eq!(without_numbers(&stub, &got.frames()), without_numbers(&stub, &expected), "{of} {split:?}");

            // OpenAI's usage is requested by the gateway; a caller that requested it too receives everything.
            let body = match of {
                Dialect::OpenAiChat => {
                    body_of(of).replace("}]}", r#"}], "stream" : true,"stream_options":{"include_usage":true}}"#)
                }
                Dialect::Anthropic => body_of(of).replace("}]}", r#"}], "stream" : true}"#),
                Dialect::Gemini => body_of(of).to_owned(),
            };
            let got = ask(&provider, &native(of, &body, true)).await;
            got.is_whole();
            assert_eq!(last_request(&stub).body, body.as_bytes(), "{of}: the body goes as it came");
            let expected = answered(&stub, stream_path, &body).await;
            assert_eq!(without_numbers(&stub, &got.frames()), without_numbers(&stub, &expected), "{of} {split:?}");
        }
    }
}

#[tokio::test]
async fn elements_of_an_array_are_passed_on_as_they_came() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let stub = Upstream::start();
    let provider = provider(&stub, Dialect::Gemini);
    let body = body_of(Dialect::Gemini);
    for split in [
        PieceSplit::Events,
        PieceSplit::Joined,
        PieceSplit::Every(3),
        PieceSplit::InsideCharacters,
        PieceSplit::InsideLines,
    ] {
        stub.script("m", script().split(split));
        let got = ask(&provider, &in_array(body)).await;
        got.is_whole();
        assert_eq!(last_request(&stub).target, "/v1beta/models/m:streamGenerateContent");
        assert_eq!(got.content_type, "application/json; charset=UTF-8");
        let elements: Vec<String> =
            got.pieces.iter().map(|piece| String::from_utf8(piece.frame.clone()).unwrap()).collect();
        let expected = answered(&stub, "/v1beta/models/m:streamGenerateContent", body).await;
        let joined = format!("[{}]", elements.join(",\r\n"));
        assert_eq!(without_numbers(&stub, &joined), without_numbers(&stub, &expected), "{split:?}");
    }
}

#[tokio::test]
async fn a_usage_that_nobody_asked_for_is_heard_and_not_shown() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let stub = Upstream::start();
    let provider = provider(&stub, Dialect::OpenAiChat);
    stub.script("m", script().split(PieceSplit::Every(5)));
    for options in ["", r#","stream_options":{"include_obfuscation":true}"#] {
        let tail = format!(r#"}}],"stream":true{options}}}"#);
        let body = body_of(Dialect::OpenAiChat).replace("}]}", &tail);
        let got = ask(&provider, &native(Dialect::OpenAiChat, &body, true)).await;
        got.is_whole();
        let sent: Value = serde_json::from_slice(&last_request(&stub).body).unwrap();
        assert_eq!(sent["stream_options"]["include_usage"], true);
        let expected = answered(&stub, "/v1/chat/completions", &body).await;
        assert_eq!(without_numbers(&stub, &got.frames()), without_numbers(&stub, &expected), "as if it were not asked");
        assert!(!expected.contains("usage") && got.usage().is_some());
    }
}

#[tokio::test]
async fn the_model_and_the_bound_of_the_call_hold() {
    let stub = Upstream::start();
    for (of, _, _) in PATHS {
        let mut call = native(of, &body_of(of).replace(r#""model":"m""#, r#""model":"an-alias""#), false);
        call.max_output_tokens = Some(3);
        let got = ask(&provider(&stub, of), &call).await;
        got.is_whole();
        let line = stub.settled(1).await.pop().unwrap();
        assert_eq!((line.model.as_str(), line.usage.output()), ("m", 3), "{of}");
    }
}

#[tokio::test]
async fn headers_of_the_provider_go_along_and_no_others() {
    let stub = Upstream::start();
    for (of, own, foreign) in [
        (Dialect::OpenAiChat, "openai-beta", "openai-organization"),
        (Dialect::Anthropic, "anthropic-beta", "x-api-key"),
        (Dialect::Gemini, "x-goog-request-params", "x-goog-user-project"),
    ] {
        let mut call = native(of, body_of(of), false);
        let CallContent::Native(content) = &mut call.content else { unreachable!() };
        for name in [own, foreign, "authorization", "cookie", "host", "content-length", "x-forwarded-for"] {
            content.headers.push((name.to_owned(), "sent-by-the-caller".to_owned()));
        }
        ask(&provider(&stub, of), &call).await.is_whole();
        let request = last_request(&stub);
        let passed: Vec<&str> = request
            .headers
            .iter()
            .filter(|(_, value)| value == "sent-by-the-caller")
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(passed, [own], "{of}");
        let key = match of {
            Dialect::OpenAiChat => request.header("authorization").unwrap().trim_start_matches("Bearer "),
            Dialect::Anthropic => request.header("x-api-key").unwrap(),
            Dialect::Gemini => request.header("x-goog-api-key").unwrap(),
        };
        assert_eq!(key, "the-key");
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!((request.header("accept-encoding"), request.header("cookie")), (None, None));
    }
    let mut call = native(Dialect::Anthropic, body_of(Dialect::Anthropic), false);
    ask(&provider(&stub, Dialect::Anthropic), &call).await.is_whole();
    assert_eq!(last_request(&stub).header("anthropic-version"), Some("2023-06-01"));
    let CallContent::Native(content) = &mut call.content else { unreachable!() };
    content.headers.push(("anthropic-version".to_owned(), "2026-10-21".to_owned()));
    ask(&provider(&stub, Dialect::Anthropic), &call).await.is_whole();
    assert_eq!(last_request(&stub).header("anthropic-version"), Some("2026-10-21"));
}

#[tokio::test]
async fn embeddings_and_counts_are_passed_on_too() {
    let stub = Upstream::start();
    let content = r#"{"parts":[{"text":"one two"}]}"#;
    let batch = format!(r#"{{"requests":[{{"model":"models/m","content":{content}}}]}}"#);
    for (of, operation, body, path, input) in [
        (
            Dialect::OpenAiChat,
            AiOperation::Embeddings,
            r#"{ "model":"m","input":["one two","three"]}"#.to_owned(),
            "/v1/embeddings",
            Some(3),
        ),
        (
            Dialect::Gemini,
            AiOperation::Embeddings,
            format!(r#"{{ "content":{content}}}"#),
            "/v1beta/models/m:embedContent",
            Some(2),
        ),
        (Dialect::Gemini, AiOperation::Embeddings, batch, "/v1beta/models/m:batchEmbedContents", Some(2)),
        (
            Dialect::Anthropic,
            AiOperation::CountTokens,
            r#"{ "model":"m","messages":[{"role":"user","content":"one two"}]}"#.to_owned(),
            "/v1/messages/count_tokens",
            None,
        ),
        (
            Dialect::Gemini,
            AiOperation::CountTokens,
            format!(r#"{{ "contents":[{content}]}}"#),
            "/v1beta/models/m:countTokens",
            None,
        ),
    ] {
        let mut call = of_operation(of, operation, &body);
        // An operation without output has no output limit.
        call.max_output_tokens = Some(3);
        let got = ask(&provider(&stub, of), &call).await;
        got.is_whole();
        let request = last_request(&stub);
        assert_eq!((request.target.as_str(), request.body.as_slice()), (path, body.as_bytes()));
        assert_eq!(without_numbers(&stub, &got.frames()), answered(&stub, path, &body).await);
        let heard = got.usage().map(|usage| usage.read().usage.tokens.total());
        assert_eq!(heard, input, "{of} {operation:?}");
    }
}

#[tokio::test]
async fn the_request_and_the_model_have_names() {
    let stub = Upstream::start();
    for (of, _, _) in PATHS {
        for streamed in [false, true] {
            let got = ask(&provider(&stub, of), &native(of, body_of(of), streamed)).await;
            let number = last_request(&stub).number;
            let expected = if of == Dialect::Gemini { format!("stub{number}") } else { format!("req_stub{number}") };
            assert_eq!((got.request_id, got.model.as_deref()), (Some(expected), Some("m")), "{of} {streamed}");
        }
    }
}

/// A proxy before the stub that counts connections and passes the bytes on. It delays the smallest pieces: the end of a
/// chunked body is one, so it never arrives together with the last frame.
async fn counting(stub: &Upstream) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    let (address, connections) = (stub.address(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_stub, mut to_stub) = TcpStream::connect(address).await.unwrap().into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_stub).await.ok() });
            tokio::spawn(async move {
                let mut piece = [0; 4_096];
                while let Ok(length @ 1..) = from_stub.read(&mut piece).await {
                    if let Some(before) = piece[..length].strip_suffix(b"0\r\n\r\n") {
                        to_client.write_all(before).await.ok();
                        tokio::time::sleep(Duration::from_millis(30)).await;
                        to_client.write_all(b"0\r\n\r\n").await.ok();
                    } else {
                        to_client.write_all(&piece[..length]).await.ok();
                    }
                }
            });
        }
    });
    (base_url, connections)
}

#[tokio::test]
async fn a_connection_serves_stream_after_stream() {
    const CALLS: usize = 8;
    let stub = Upstream::start();
    let (base_url, connections) = counting(&stub).await;
    let access = ProviderAccess::of(&base_url, "the-key");
    let provider = HttpProvider::new(ProviderProfile::CLAUDE, access, TIMEOUTS, Arc::new(SystemClock)).unwrap();
    for _ in 0..CALLS {
        ask(&provider, &native(Dialect::Anthropic, body_of(Dialect::Anthropic), true)).await.is_whole();
        // The end of the body is read after the last piece.
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    let connections = connections.load(Ordering::Relaxed);
    assert!(connections <= CALLS / 2, "{connections} for {CALLS} calls");
}
