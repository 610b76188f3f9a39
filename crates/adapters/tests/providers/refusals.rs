//! What a refusal passes on: its status, its message and the headers meant for callers, and never our API key.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::ai::Dialect;
use ports::ai::{ProviderFault, ProviderRefusal};
use testkit::raw::{RawReply, RawUpstream};

use crate::asking::{ask, body_of, native};
use crate::lenience::raw;

const KEY: &str = "the-key-of-the-operator";

async fn fault(of: Dialect, reply: RawReply) -> ProviderFault {
    let upstream = RawUpstream::start(reply);
    ask(&raw(&upstream, of), &native(of, body_of(of), false)).await.fault.unwrap()
}

#[tokio::test]
async fn what_the_caller_did_is_refused_with_its_own_status() {
    for of in Dialect::ALL {
        for status in [400, 403, 404, 409, 413, 415, 422] {
            let body = format!(r#"{{"error":{{"message":"not so","type":"x","code":{status}}}}}"#);
            let ProviderFault::Refused(refusal) = fault(of, RawReply::json(status, &body)).await else {
                panic!("{of} {status}")
            };
            assert_eq!((refusal.status, refusal.body.as_slice()), (status, body.as_bytes()));
        }
        let body = r#"{"error":{"message":"This key may not do that","type":"x"}}"#;
        for status in [401, 403] {
            let refused = fault(of, RawReply::json(status, body)).await;
            assert!(matches!(refused, ProviderFault::KeyRefused(_)), "{of} {status}: {refused:?}");
        }
    }
}

/// What only the operator can change is no refusal of the caller's request, and a fallback may answer.
#[tokio::test]
async fn what_concerns_the_account_of_the_operator_is_not_the_callers() {
    for (of, status, error) in [
        (
            Dialect::OpenAiChat,
            400,
            r#""code":"billing_hard_limit_reached","message":"m","type":"invalid_request_error""#,
        ),
        (Dialect::OpenAiChat, 429, r#""code":"billing_not_active","message":"m","type":"billing_not_active""#),
        (Dialect::Anthropic, 400, r#""type":"invalid_request_error","message":"This organization has been disabled.""#),
        (
            Dialect::Gemini,
            400,
            r#""code":400,"status":"FAILED_PRECONDITION","message":"User location is not supported for the API use.""#,
        ),
        (
            Dialect::Gemini,
            429,
            r#""code":429,"status":"RESOURCE_EXHAUSTED","message":"Your project has exceeded its monthly spending cap.""#,
        ),
    ] {
        let refused = fault(of, RawReply::json(status, &format!("{{\"error\":{{{error}}}}}"))).await;
        let is_of_account = matches!(refused, ProviderFault::SpendLimit(_) | ProviderFault::KeyRefused(_));
        assert!(is_of_account && !refused.may_be_tried_again() && refused.may_pass(), "{of}: {refused:?}");
    }
}

#[tokio::test]
async fn an_error_within_an_answer_has_the_status_that_it_names() {
    for (code, expected) in [
        ("400", Some(400)),
        ("\"422\"", Some(422)),
        ("429", Some(429)),
        ("502", Some(502)),
        ("529", Some(529)),
        ("200", Some(500)),
        ("9e9", Some(500)),
        ("-1", Some(500)),
        ("null", Some(500)),
        ("\"server_error\"", Some(500)),
    ] {
        let body = format!(r#"{{"error":{{"message":"not so","code":{code}}}}}"#);
        let within = format!("data: {body}\n\n");
        let text = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Well\"}}]}\n\n";
        for events in [&[within.as_str()][..], &[text, &within]] {
            let upstream = RawUpstream::start(RawReply::events(events));
            let of = Dialect::OpenAiChat;
            let got = ask(&raw(&upstream, of), &native(of, body_of(of), true)).await;
            let status = got.fault.as_ref().and_then(ProviderFault::refusal).map(|refusal| refusal.status);
            assert_eq!(status, expected, "{code}: {:?}", got.fault);
        }
    }
}

#[tokio::test]
async fn the_headers_of_rates_and_names_go_along() {
    let with_headers = |reply: RawReply| {
        reply
            .with_header("x-ratelimit-remaining-requests", "9")
            .with_header("anthropic-ratelimit-tokens-limit", "100")
            .with_header("retry-after", "3")
            .with_header("request-id", "req_1")
            .with_header("openai-organization", "acme")
            .with_header("set-cookie", "a=b")
    };
    let refused = fault(Dialect::Anthropic, with_headers(RawReply::json(400, "{}"))).await;
    let answered = RawUpstream::start(with_headers(RawReply::json(200, r#"{"type":"message","content":[]}"#)));
    let got =
        ask(&raw(&answered, Dialect::Anthropic), &native(Dialect::Anthropic, body_of(Dialect::Anthropic), false)).await;
    for headers in [refused.refusal().unwrap().headers.clone(), got.headers] {
        let mut names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        let expected =
            ["anthropic-ratelimit-tokens-limit", "request-id", "retry-after", "x-ratelimit-remaining-requests"];
        assert_eq!(names, expected);
    }
}

#[tokio::test]
async fn a_provider_that_echoes_the_key_hands_it_to_nobody() {
    let spelled = [
        KEY.to_owned(),
        format!("Bearer {KEY}"),
        KEY.to_uppercase(),
        STANDARD.encode(format!("api:{KEY}")),
        KEY.replace('-', "%2D"),
        KEY.replace('-', "\\u002d"),
        KEY[..14].to_owned(),
    ];
    for of in Dialect::ALL {
        for spelling in &spelled {
            let body = format!(r#"{{"error":{{"message":"got authorization: {spelling}","code":"{spelling}"}}}}"#);
            for status in [400, 404, 429, 500, 529] {
                let reply = RawReply::json(status, &body).with_header("x-ratelimit-echo", spelling);
                let told = format!("{:?}", readable(fault(of, reply).await.refusal().unwrap()));
                assert!(told.contains("[redacted]"), "{told}");
                assert!(!told.contains(spelling.as_str()), "{of} {status} {spelling}: {told}");
            }
            // An error with a success status, whole and in a stream.
            let within = format!("data: {body}\n\n");
            for reply in [RawReply::json(200, &body), RawReply::events(&[&within])] {
                let upstream = RawUpstream::start(reply);
                for streamed in [false, true] {
                    let got = ask(&raw(&upstream, of), &native(of, body_of(of), streamed)).await;
                    let told = format!("{:?}", got.fault.as_ref().and_then(ProviderFault::refusal).map(readable));
                    assert!(told.contains("[redacted]") && !told.contains(spelling.as_str()), "{of}: {told}");
                }
            }
        }
    }
}

fn readable(refusal: &ProviderRefusal) -> (String, Option<String>, String, Vec<(String, String)>) {
    let body = String::from_utf8_lossy(&refusal.body).into_owned();
    (refusal.message.clone(), refusal.code.clone(), body, refusal.headers.clone())
}
