//! Unexpected provider output: a native caller receives it byte by byte, and it ends no reply as an error.

use std::sync::Arc;

use domain::ai::{AnswerDelta, Dialect, FinishReason};
use ports::ai::AiOperation;
use product_base_adapters::ai::{HttpProvider, ProviderAccess};
use product_base_adapters::clock::SystemClock;
use testkit::raw::{RawReply, RawUpstream};

use crate::asking::{Got, TIMEOUTS, ask, body_of, conversing, in_array, native, of_operation, profile_of, saying};

pub fn raw(upstream: &RawUpstream, of: Dialect) -> HttpProvider {
    let base_url = if of == Dialect::OpenAiChat { format!("{}/v1", upstream.url()) } else { upstream.url() };
    let access = ProviderAccess::of(&base_url, "the-key-of-the-operator");
    HttpProvider::new(profile_of(of), access, TIMEOUTS, Arc::new(SystemClock)).unwrap()
}

async fn streamed(of: Dialect, reply: &RawReply) -> Got {
    let upstream = RawUpstream::start(reply.clone());
    let mut body = body_of(of).to_owned();
    if of == Dialect::OpenAiChat {
        // A caller that requests the usage receives everything.
        body = body.replace("}]}", r#"}],"stream":true,"stream_options":{"include_usage":true}}"#);
    }
    ask(&raw(&upstream, of), &native(of, &body, true)).await
}

fn unread(got: &Got) -> u64 {
    got.pieces.iter().map(|piece| piece.unread).sum()
}

fn bytes(got: &Got) -> Vec<u8> {
    got.pieces.iter().flat_map(|piece| piece.frame.clone()).collect()
}

fn said(got: &Got) -> String {
    let text = |delta: &AnswerDelta| match delta {
        AnswerDelta::Text(text) => text.clone(),
        _ => String::new(),
    };
    got.deltas().iter().map(text).collect()
}

const SAYS: &str =
    "data: {\"id\":\"c\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"one\"}}]}\n\n";
const FINISHES: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USES: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// A description, the frames, the text in them, and whether a part of them is not understood.
type Odd = (&'static str, &'static [&'static str], &'static str, bool);

const ODD_CHUNKS: &[Odd] = &[
    (
        "both names of the thoughts",
        &[
            "data: {\"choices\":[{\"delta\":{\"reasoning\":\"a\",\"reasoning_content\":\"a\",\"content\":\"x\"}}]}\n\n",
            FINISHES,
            DONE,
        ],
        "x",
        false,
    ),
    (
        "choices null",
        &[SAYS, FINISHES, "data: {\"choices\":null,\"usage\":{\"prompt_tokens\":7}}\n\n", DONE],
        "one",
        false,
    ),
    ("no choices", &[SAYS, FINISHES, "data: {\"usage\":{\"prompt_tokens\":7}}\n\n", DONE], "one", false),
    ("no end", &[SAYS, FINISHES, USES], "one", false),
    ("no end and no usage", &[SAYS, FINISHES], "one", false),
    ("neither end nor finish", &[SAYS], "one", false),
    ("empty object", &["data: {}\n\n", SAYS, "data: {}\n\n", FINISHES, DONE], "one", true),
    ("ping", &["event: ping\ndata: {\"type\":\"ping\"}\n\n", SAYS, FINISHES, DONE], "one", true),
    ("no JSON", &[SAYS, "data: hello\n\n", FINISHES, DONE], "one", true),
    (
        "a pair in two halves",
        &[
            "data: {\"choices\":[{\"delta\":{\"content\":\"x\\ud83d\"}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"\\ude00y\"}}]}\n\n",
            FINISHES,
            DONE,
        ],
        "x\u{fffd}\u{fffd}y",
        false,
    ),
    ("CR", &["data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\r\r", "data: [DONE]\r\r"], "x", false),
    (
        "CRLF and comments",
        &[": hi\r\n\r\n", "data:{\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\r\n\r\n", DONE],
        "x",
        false,
    ),
    ("data in lines", &["data: {\"choices\":\ndata: [{\"delta\":{\"content\":\"x\"}}]}\n\n", DONE], "x", false),
    ("two ends", &[SAYS, FINISHES, FINISHES, DONE], "one", false),
    (
        "members twice",
        &["data: {\"id\":1,\"id\":\"c\",\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n", DONE],
        "x",
        false,
    ),
    (
        "numbers as fractions",
        &["data: {\"created\":1.5,\"choices\":[{\"index\":0.0,\"delta\":{\"content\":\"x\"}}]}\n\n", DONE],
        "x",
        false,
    ),
    (
        "content in parts",
        &["data: {\"choices\":[{\"delta\":{\"content\":[{\"type\":\"text\",\"text\":\"x\"}]}}]}\n\n", DONE],
        "x",
        false,
    ),
    ("no list of choices", &["data: {\"choices\":{\"a\":1}}\n\n", SAYS, DONE], "one", false),
    (
        "an error that is none",
        &["data: {\"error\":null,\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n", DONE],
        "x",
        false,
    ),
    (
        "an unknown reason",
        &[SAYS, "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tired\"}]}\n\n", DONE],
        "one",
        false,
    ),
    ("an unknown delta", &["data: {\"choices\":[{\"delta\":{\"verse\":\"roses\"}}]}\n\n", SAYS, DONE], "one", true),
    (
        "a call of an odd kind",
        &["data: {\"choices\":[{\"delta\":{\"tool_calls\":{\"id\":1}}}]}\n\n", SAYS, DONE],
        "one",
        false,
    ),
    ("usage everywhere", &[USES, SAYS, USES, FINISHES, USES, DONE], "one", false),
];

#[tokio::test]
async fn odd_chunks_of_openai_pass_and_end_well() {
    for (name, frames, text, is_unread) in ODD_CHUNKS {
        let reply = RawReply::events(frames);
        let got = streamed(Dialect::OpenAiChat, &reply).await;
        assert_eq!(got.fault, None, "{name}");
        assert_eq!(String::from_utf8_lossy(&bytes(&got)), String::from_utf8_lossy(&reply.body()), "{name}");
        assert_eq!((said(&got).as_str(), unread(&got) > 0), (*text, *is_unread), "{name}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_text_pass() {
    let odd = b"data: {\"choices\":[{\"delta\":{\"content\":\"x\xff\"}}]}\n\n".as_slice();
    let reply = RawReply::of("text/event-stream", &[odd, DONE.as_bytes()]);
    let got = streamed(Dialect::OpenAiChat, &reply).await;
    assert_eq!((got.fault.clone(), said(&got).as_str()), (None, "x\u{fffd}"));
    assert_eq!(bytes(&got), reply.body());
    // So does a chunk whose usage should be hidden and cannot be removed.
    let upstream = RawUpstream::start(reply.clone());
    let got =
        ask(&raw(&upstream, Dialect::OpenAiChat), &native(Dialect::OpenAiChat, body_of(Dialect::OpenAiChat), true))
            .await;
    assert_eq!((got.fault.clone(), bytes(&got)), (None, reply.body()));
}

#[tokio::test]
async fn a_usage_in_odd_numbers_is_read() {
    for usage in [
        r#"{"prompt_tokens":7.0,"completion_tokens":"2"}"#,
        r#"{"prompt_tokens":7,"completion_tokens":2,"prompt_tokens_details":"none"}"#,
    ] {
        let tells = format!("data: {{\"choices\":[],\"usage\":{usage}}}\n\n");
        let got = streamed(Dialect::OpenAiChat, &RawReply::events(&[SAYS, FINISHES, &tells, DONE])).await;
        let tokens = got.usage().unwrap().read().usage.tokens;
        assert_eq!((got.fault, tokens.input(), tokens.output()), (None, 7, 2), "{usage}");
    }
}

#[tokio::test]
async fn a_stream_is_told_by_how_it_begins() {
    for content_type in ["text/plain", "application/octet-stream", "application/json", ""] {
        let reply = RawReply::events(&[SAYS, FINISHES, DONE]).with_header("content-type", content_type);
        let got = streamed(Dialect::OpenAiChat, &reply).await;
        assert_eq!((got.fault.clone(), said(&got).as_str()), (None, "one"), "{content_type}");
        assert_eq!(bytes(&got), reply.body());
        let upstream = RawUpstream::start(reply);
        let got = ask(&raw(&upstream, Dialect::OpenAiChat), &conversing(Dialect::OpenAiChat, saying("x"), true)).await;
        assert_eq!((got.fault.clone(), said(&got).as_str()), (None, "one"), "{content_type}, translated");
    }
    // One whole reply in place of a stream, and an HTML page in place of either.
    let whole = RawReply::json(200, r#"{"choices":[{"message":{"content":"one"},"finish_reason":"stop"}]}"#);
    let got = streamed(Dialect::OpenAiChat, &whole).await;
    assert_eq!((got.fault.clone(), bytes(&got)), (None, whole.body()));
    for page in [RawReply::of("text/html", &[b"<html>"]), RawReply::of("text/plain", &[b"no upstream"])] {
        assert!(streamed(Dialect::OpenAiChat, &page).await.fault.is_some());
    }
}

#[tokio::test]
async fn odd_events_of_claude_pass_and_end_well() {
    const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"usage\":{\"input_tokens\":7,\"output_tokens\":1}}}\n\n";
    const BLOCK: &str =
        "data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
    const TEXT: &str =
        "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"one\"}}\n\n";
    const ENDS: &str = "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":3}}\n\n";
    const STOP: &str = "data: {\"type\":\"message_stop\"}\n\n";
    for (name, frames, is_unread) in [
        ("no message_stop", vec![START, BLOCK, TEXT, ENDS], false),
        ("no start", vec![TEXT, ENDS, STOP], false),
        ("an unknown event", vec![START, "data: {\"type\":\"mood\",\"mood\":\"good\"}\n\n", TEXT, ENDS, STOP], true),
        ("an event without a type", vec![START, "data: {}\n\n", TEXT, ENDS, STOP], true),
        (
            "an unknown delta",
            vec![
                START,
                "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"x_delta\",\"x\":\"y\"}}\n\n",
                TEXT,
                ENDS,
                STOP,
            ],
            true,
        ),
        ("a start without a message", vec!["data: {\"type\":\"message_start\"}\n\n", TEXT, ENDS, STOP], false),
        ("two reasons", vec![START, TEXT, ENDS, ENDS, STOP], false),
        ("an end of OpenAI's", vec![START, TEXT, ENDS, "data: [DONE]\n\n"], true),
        (
            "numbers as fractions",
            vec![
                START,
                "data: {\"type\":\"content_block_delta\",\"index\":0.0,\"delta\":{\"text\":\"one\"}}\n\n",
                ENDS,
                STOP,
            ],
            false,
        ),
    ] {
        let reply = RawReply::events(&frames);
        let got = streamed(Dialect::Anthropic, &reply).await;
        assert_eq!(got.fault, None, "{name}");
        assert_eq!(String::from_utf8_lossy(&bytes(&got)), String::from_utf8_lossy(&reply.body()), "{name}");
        assert_eq!((said(&got).as_str(), unread(&got) > 0), ("one", is_unread), "{name}");
        assert!(got.deltas().contains(&AnswerDelta::Finished(FinishReason::Stop)), "{name}");
    }
}

#[tokio::test]
async fn odd_chunks_of_gemini_pass_and_end_well() {
    const TEXT: &str = r#"{"candidates":[{"content":{"parts":[{"text":"one"}]}}]}"#;
    for (name, chunks, is_unread) in [
        ("no reason to finish", vec![TEXT], false),
        ("an empty chunk", vec!["{}", TEXT], true),
        ("no list of candidates", vec![r#"{"candidates":{}}"#, TEXT], false),
        (
            "a part of an unknown kind",
            vec![TEXT, r#"{"candidates":[{"content":{"parts":[{"verse":"roses"}]}}]}"#],
            true,
        ),
        ("numbers as text", vec![TEXT, r#"{"usageMetadata":{"promptTokenCount":"7"}}"#], false),
    ] {
        let frames: Vec<String> = chunks.iter().map(|chunk| format!("data: {chunk}\r\n\r\n")).collect();
        let reply = RawReply::events(&frames.iter().map(String::as_str).collect::<Vec<_>>());
        let got = streamed(Dialect::Gemini, &reply).await;
        assert_eq!((got.fault.clone(), said(&got).as_str(), unread(&got) > 0), (None, "one", is_unread), "{name}");
        assert_eq!(bytes(&got), reply.body(), "{name}");
        let upstream = RawUpstream::start(RawReply::json(200, &format!("[{}]", chunks.join(","))));
        let got = ask(&raw(&upstream, Dialect::Gemini), &in_array(body_of(Dialect::Gemini))).await;
        assert_eq!((got.fault.clone(), said(&got).as_str(), got.pieces.len()), (None, "one", chunks.len()), "{name}");
    }
}

#[tokio::test]
async fn a_whole_answer_that_nobody_understands_passes_and_is_weighed() {
    for of in Dialect::ALL {
        for body in ["no JSON at all", r#"{"answer":"forty two"}"#, "[1]", "{\"choices\":"] {
            let upstream = RawUpstream::start(RawReply::json(200, body));
            let got = ask(&raw(&upstream, of), &native(of, body_of(of), false)).await;
            assert_eq!((got.fault.clone(), bytes(&got)), (None, body.as_bytes().to_vec()), "{of} {body}");
            got.is_whole();
            assert!(unread(&got) == 1 && got.usage().is_none(), "{of} {body}");
            let weighed: String = got.deltas().iter().map(|delta| delta.text().to_owned()).collect();
            assert!(body == "[1]" || !weighed.is_empty(), "{of} {body}");
            let got = ask(&raw(&upstream, of), &conversing(of, saying("x"), false)).await;
            assert!(got.fault.is_some(), "{of} {body}: nothing of it can be translated");
        }
        let upstream = RawUpstream::start(RawReply::json(200, "\n"));
        assert!(ask(&raw(&upstream, of), &native(of, body_of(of), false)).await.fault.is_some(), "{of}: it is empty");
        let upstream = RawUpstream::start(RawReply::json(200, "{\"id\":\"x\"").cut_off());
        assert!(ask(&raw(&upstream, of), &native(of, body_of(of), false)).await.fault.is_some(), "{of}: it broke off");
    }
    let odd = r#"{"data":"odd"}"#;
    let upstream = RawUpstream::start(RawReply::json(200, odd));
    let call = of_operation(Dialect::OpenAiChat, AiOperation::Embeddings, r#"{"model":"m","input":"x"}"#);
    assert_eq!(bytes(&ask(&raw(&upstream, Dialect::OpenAiChat), &call).await), odd.as_bytes());
}

#[tokio::test]
async fn a_frame_that_is_too_long_passes() {
    let long = format!("data: {{\"picture\":\"{}\"}}\n\n", "A".repeat(9 * 1024 * 1024));
    let reply = RawReply::events(&[SAYS, &long, FINISHES, DONE]);
    let got = streamed(Dialect::OpenAiChat, &reply).await;
    assert_eq!((got.fault.clone(), said(&got).as_str(), unread(&got) > 0), (None, "one", true));
    assert!(bytes(&got) == reply.body(), "every byte passes");
}

#[tokio::test]
async fn a_transport_that_breaks_is_an_error_whatever_was_said() {
    for frames in [vec![SAYS], vec![SAYS, FINISHES], vec!["data: {}\n\n"]] {
        let got = streamed(Dialect::OpenAiChat, &RawReply::events(&frames).cut_off()).await;
        assert!(got.fault.is_some(), "{frames:?}");
    }
    assert!(streamed(Dialect::OpenAiChat, &RawReply::events(&[])).await.fault.is_some(), "nothing came");
}
