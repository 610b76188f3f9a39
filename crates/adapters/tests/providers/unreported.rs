//! What a provider bills without a plain report of it: output in members that are not known, a usage that comes twice,
//! a usage beside an error, and an answer that is lost.

use domain::ai::Dialect;
use ports::ai::ProviderFault;
use serde_json::{Value, json};
use testkit::raw::{RawReply, RawUpstream};

use crate::asking::{Got, ask, body_of, conversing, native, saying};
use crate::lenience::raw;

async fn asked(of: Dialect, reply: RawReply, is_native: bool, streamed: bool) -> Got {
    let upstream = RawUpstream::start(reply);
    let call = if is_native { native(of, body_of(of), streamed) } else { conversing(of, saying("x"), streamed) };
    ask(&raw(&upstream, of), &call).await
}

fn text(got: &Got) -> String {
    got.deltas().iter().map(|delta| delta.text().to_owned()).collect()
}

fn hidden(got: &Got) -> u64 {
    got.pieces.iter().map(|piece| piece.hidden_tokens).sum()
}

#[tokio::test]
async fn output_in_unknown_members_counts_in_whole_answers_and_in_streams() {
    let encoded = "A".repeat(4_096);
    for (member, value, expected, tokens) in [
        ("reasoning_details", json!([{ "type": "reasoning.text", "text": "because" }]), "because", 0),
        ("audio", json!({ "id": "a", "data": encoded, "transcript": "said aloud" }), "said aloud", 4),
        ("images", json!([{ "image_url": { "url": format!("data:image/png;base64,{encoded}") } }]), "", 5),
        ("verse", json!("roses"), "roses", 0),
    ] {
        let message =
            json!({ "role": "assistant", "content": "one", "refusal": null, "annotations": [{ "url": "u" }] });
        let mut message = message.as_object().unwrap().clone();
        message.insert(member.to_owned(), value);
        let whole = json!({ "id": "c", "choices": [{ "index": 0, "message": message, "logprobs": { "content": ["one"] },
            "finish_reason": "stop" }] });
        let got = asked(Dialect::OpenAiChat, RawReply::json(200, &whole.to_string()), true, false).await;
        got.is_whole();
        assert_eq!((text(&got), hidden(&got)), (format!("one{expected}"), tokens), "{member}, whole");
        let translated = asked(Dialect::OpenAiChat, RawReply::json(200, &whole.to_string()), false, false).await;
        assert_eq!((translated.fault.clone(), text(&translated).as_str()), (None, "one"), "{member}, translated");
        let chunk = json!({ "choices": [{ "index": 0, "delta": message }] });
        let frames = [format!("data: {chunk}\n\n"), "data: [DONE]\n\n".to_owned()];
        let frames: Vec<&str> = frames.iter().map(String::as_str).collect();
        let got = asked(Dialect::OpenAiChat, RawReply::events(&frames), true, true).await;
        assert_eq!((text(&got), hidden(&got)), (format!("one{expected}"), tokens), "{member}, streamed");
    }
    // Details that repeat the thoughts beside them count once.
    let both = json!({ "choices": [{ "message": { "content": "one", "reasoning": "so",
        "reasoning_details": [{ "text": "so" }] }, "finish_reason": "stop" }] });
    let got = asked(Dialect::OpenAiChat, RawReply::json(200, &both.to_string()), true, false).await;
    assert_eq!(text(&got), "soone");
}

#[tokio::test]
async fn encrypted_thinking_and_pictures_count_by_their_size() {
    let (encrypted, picture) = ("A".repeat(600), "A".repeat(10_240));
    let claude = json!({ "type": "message", "stop_reason": "end_turn", "content": [
        { "type": "redacted_thinking", "data": encrypted }, { "type": "thinking", "thinking": "", "signature": encrypted },
        { "type": "thinking", "thinking": "seen", "signature": encrypted },
        { "type": "server_tool_use", "id": "s", "name": "web_search", "input": { "query": "roses" } },
        { "type": "web_search_tool_result", "content": [{ "title": "a page" }] }, { "type": "text", "text": "one" }] });
    let gemini = json!({ "candidates": [{ "finishReason": "STOP", "content": { "parts": [
        { "inlineData": { "mimeType": "image/png", "data": picture } }, { "thoughtSignature": encrypted },
        { "text": "one", "thoughtSignature": encrypted }] } }] });
    for (of, body, expected, tokens) in
        [(Dialect::Anthropic, &claude, "seenoneroses", 200), (Dialect::Gemini, &gemini, "one", 110)]
    {
        for is_native in [true, false] {
            let got = asked(of, RawReply::json(200, &body.to_string()), is_native, false).await;
            assert_eq!(got.fault, None, "{of}");
            assert_eq!(hidden(&got), tokens, "{of}, native {is_native}");
            assert!(!is_native || text(&got) == expected, "{of}: {}", text(&got));
        }
    }
    let event = |event: Value| format!("data: {event}\n\n");
    let delta = |delta: Value| event(json!({ "type": "content_block_delta", "index": 0, "delta": delta }));
    let start = |block: Value| event(json!({ "type": "content_block_start", "index": 0, "content_block": block }));
    let frames = [
        start(json!({ "type": "redacted_thinking", "data": encrypted })),
        start(json!({ "type": "thinking", "thinking": "", "signature": "" })),
        delta(json!({ "type": "signature_delta", "signature": encrypted })),
        start(json!({ "type": "thinking", "thinking": "" })),
        delta(json!({ "type": "thinking_delta", "thinking": "seen" })),
        delta(json!({ "type": "signature_delta", "signature": encrypted })),
        event(json!({ "type": "message_stop" })),
    ];
    let frames: Vec<&str> = frames.iter().map(String::as_str).collect();
    let got = asked(Dialect::Anthropic, RawReply::events(&frames), true, true).await;
    assert_eq!((text(&got).as_str(), hidden(&got)), ("seen", 200));
}

/// A body of an answer whose members `usage` (or the provider's name for it) are these.
fn with_usage(of: Dialect, usages: &[&str]) -> String {
    let (name, answer) = match of {
        Dialect::OpenAiChat => {
            ("usage", r#""choices":[{"index":0,"message":{"content":"one"},"finish_reason":"stop"}]"#)
        }
        Dialect::Anthropic => {
            ("usage", r#""type":"message","content":[{"type":"text","text":"one"}],"stop_reason":"end_turn""#)
        }
        Dialect::Gemini => {
            ("usageMetadata", r#""candidates":[{"content":{"parts":[{"text":"one"}]},"finishReason":"STOP"}]"#)
        }
    };
    let usages: Vec<String> = usages.iter().map(|usage| format!(r#","{name}":{usage}"#)).collect();
    format!("{{{answer}{}}}", usages.concat())
}

fn usage_of(of: Dialect, input: u64, output: u64) -> String {
    match of {
        Dialect::OpenAiChat => json!({ "prompt_tokens": input, "completion_tokens": output }),
        Dialect::Anthropic => json!({ "input_tokens": input, "output_tokens": output }),
        Dialect::Gemini => json!({ "promptTokenCount": input, "candidatesTokenCount": output }),
    }
    .to_string()
}

fn tokens(got: &Got) -> Option<(u64, u64)> {
    got.usage().map(|usage| usage.read().usage.tokens).map(|tokens| (tokens.input(), tokens.output()))
}

#[tokio::test]
async fn a_usage_that_comes_twice_is_read_as_the_larger() {
    for of in Dialect::ALL {
        let (large, small) = (usage_of(of, 700, 300), usage_of(of, 1, 2));
        for usages in [[large.as_str(), small.as_str()], [&small, &large], [&large, "null"], ["null", &large]] {
            let got = asked(of, RawReply::json(200, &with_usage(of, &usages)), true, false).await;
            assert_eq!((tokens(&got), got.fault), (Some((700, 300)), None), "{of} {usages:?}");
        }
    }
    let twice = r#"{"type":"message_start","message":{"usage":{"input_tokens":700},"usage":{"input_tokens":1}}}"#;
    let frames = [format!("data: {twice}\n\n"), "data: {\"type\":\"message_stop\"}\n\n".to_owned()];
    let frames: Vec<&str> = frames.iter().map(String::as_str).collect();
    let got = asked(Dialect::Anthropic, RawReply::events(&frames), true, true).await;
    assert_eq!(tokens(&got), Some((700, 0)), "in a message of a stream");
}

#[tokio::test]
async fn a_usage_beside_an_error_is_reported_and_the_error_too() {
    let error = r#""error":{"code":503,"status":"UNAVAILABLE","type":"overloaded_error","message":"m"}"#;
    for of in Dialect::ALL {
        for is_native in [true, false] {
            for streamed in [true, false] {
                for (usage, expected) in [(usage_of(of, 700, 300), Some((700, 300))), (usage_of(of, 0, 0), None)] {
                    let body = with_usage(of, &[&usage]).replacen('{', &format!("{{{error},"), 1);
                    let reply = if streamed && of != Dialect::Gemini {
                        RawReply::events(&[&format!("data: {body}\n\n")])
                    } else {
                        RawReply::json(200, &body)
                    };
                    let got = asked(of, reply, is_native, streamed).await;
                    let about = format!("{of}, native {is_native}, streamed {streamed}");
                    assert!(matches!(got.fault, Some(ProviderFault::Failed { .. })), "{about}: {:?}", got.fault);
                    assert_eq!((tokens(&got), got.pieces.len()), (expected, expected.iter().count()), "{about}");
                }
            }
        }
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_translated_reports_its_usage() {
    let unknown = format!(r#"{{"choices":[{{"verse":"roses"}}],"usage":{}}}"#, usage_of(Dialect::OpenAiChat, 700, 300));
    let got = asked(Dialect::OpenAiChat, RawReply::json(200, &unknown), false, false).await;
    assert_eq!(tokens(&got), Some((700, 300)));
    assert!(matches!(got.fault, Some(ProviderFault::NotUnderstood(_))), "{:?}", got.fault);
}

#[tokio::test]
async fn an_answer_whose_body_breaks_is_lost_and_not_merely_broken() {
    for of in Dialect::ALL {
        let whole = with_usage(of, &[]);
        for (begins, is_lost) in [(&whole[..20], true), ("", false)] {
            for is_native in [true, false] {
                let got = asked(of, RawReply::json(200, begins).cut_off(), is_native, false).await;
                let is_expected = match got.fault {
                    Some(ProviderFault::LostAnswer(_)) => is_lost,
                    Some(ProviderFault::Broken(_)) => !is_lost,
                    _ => false,
                };
                assert!(is_expected, "{of}: {:?}", got.fault);
            }
        }
    }
}

#[tokio::test]
async fn a_whole_answer_in_place_of_a_stream_keeps_its_usage() {
    let body = with_usage(Dialect::OpenAiChat, &[&usage_of(Dialect::OpenAiChat, 7, 3)]);
    let got = asked(Dialect::OpenAiChat, RawReply::json(200, &body), true, true).await;
    assert_eq!((got.frames(), tokens(&got)), (body, Some((7, 3))));
}
