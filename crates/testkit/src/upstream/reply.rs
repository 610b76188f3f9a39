//! The stub's core function: the response to a request under a script. It is pure.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::ask::{UpstreamAsk, UpstreamCallKind, UpstreamDialect};
use super::generated::GeneratedAnswer;
use super::refusals::{Refusal, Refused};
use super::script::{Fault, Script, ScriptedAnswer};
use super::steps::{PlayEvent, PlayFraming, PlayStep, of_body};
use super::usage::UsageParts;
use super::{anthropic, gemini, openai};

pub struct UpstreamReply {
    /// The status in the head, or 0 where none is sent.
    pub status: u16,
    pub is_stream: bool,
    pub steps: Vec<PlayStep>,
}

const GARBAGE: &[u8] = b"\x00\xff\xfe{\"oops\": [1, 2,\ndata: {\"choices\"\n\x80\n\n";

pub fn to(ask: &UpstreamAsk, script: &Script, number: u64, known: &[String]) -> UpstreamReply {
    match &script.fault {
        Some(Fault::Refuse(refusal)) => return before(script, refused(ask.dialect, refusal, number)),
        Some(Fault::ErrorWith200(refusal)) => {
            let error = Refused { status: 200, ..refusal.rendered(ask.dialect) };
            return before(script, told(ask.dialect, error, number));
        }
        Some(Fault::ErrorAfter { refusal, .. }) if !is_stream(ask) => {
            return before(script, refused(ask.dialect, refusal, number));
        }
        Some(Fault::HangBeforeHead) => return before(script, nothing(PlayStep::Hang)),
        Some(Fault::ResetBeforeHead) => return before(script, nothing(PlayStep::Reset)),
        Some(Fault::CloseBeforeHead) => return before(script, nothing(PlayStep::Close)),
        _ => {}
    }
    let answer = answer_to(ask, &script.answer);
    let generated = GeneratedAnswer::of(ask, &answer, script.usage);
    let mut events = events(ask, &generated, number, known);
    match &script.fault {
        Some(Fault::EndAfter { events: kept }) => events.truncate(*kept),
        Some(Fault::ErrorAfter { events: kept, refusal }) => {
            let used = used_by(&events, *kept);
            events.truncate(*kept);
            events.push(PlayEvent::of(error_event(ask, refusal, *kept == 0), used));
        }
        Some(Fault::Garbage { after_events }) => {
            let kept = if is_stream(ask) { *after_events } else { 0 };
            let used = used_by(&events, kept);
            events.truncate(kept);
            events.push(PlayEvent { bytes: GARBAGE.to_vec(), ..PlayEvent::of("", used) });
        }
        _ => {}
    }
    let framing = if is_stream(ask) { PlayFraming::Chunked } else { PlayFraming::Length };
    let content_type = match &script.fault {
        Some(Fault::WrongContentType(wrong)) => wrong,
        _ => content_type(ask),
    };
    let length: usize = events.iter().map(|event| event.bytes.len()).sum();
    let head = head(200, content_type, &ids(ask.dialect, number), framing, length);
    let mut steps = of_body(&events, &script.pace, script.fault.as_ref(), script.charges, framing);
    match steps.first_mut() {
        // A plain, unsplit response is one write, as servers send it.
        Some(PlayStep::Write { wire, body, .. }) if framing == PlayFraming::Length && *body == length => {
            wire.splice(0..0, head);
        }
        _ => steps.insert(0, PlayStep::Write { wire: head, body: 0, used: UsageParts::default() }),
    }
    before(script, UpstreamReply { status: 200, is_stream: is_stream(ask), steps })
}

fn answer_to<'script>(ask: &UpstreamAsk, answer: &'script ScriptedAnswer) -> Cow<'script, ScriptedAnswer> {
    match &answer.after_result {
        Some(text) if !ask.offers_tools() || ask.brings_result() => {
            Cow::Owned(ScriptedAnswer { text: text.clone(), calls: Vec::new(), ..answer.clone() })
        }
        _ => Cow::Borrowed(answer),
    }
}

/// The refusal of an invalid request, whatever the script.
pub fn refused(dialect: UpstreamDialect, refusal: &Refusal, number: u64) -> UpstreamReply {
    told(dialect, refusal.rendered(dialect), number)
}

fn told(dialect: UpstreamDialect, refused: Refused, number: u64) -> UpstreamReply {
    let mut headers = ids(dialect, number);
    headers.extend(refused.headers);
    let length = refused.body.len();
    let mut wire = head(refused.status, refused.content_type, &headers, PlayFraming::Length, length);
    wire.extend(refused.body.into_bytes());
    let steps = vec![PlayStep::Write { wire, body: length, used: UsageParts::default() }];
    UpstreamReply { status: refused.status, is_stream: false, steps }
}

fn nothing(step: PlayStep) -> UpstreamReply {
    UpstreamReply { status: 0, is_stream: false, steps: vec![step] }
}

fn before(script: &Script, mut reply: UpstreamReply) -> UpstreamReply {
    if !script.pace.before_head.is_zero() {
        reply.steps.insert(0, PlayStep::Wait(script.pace.before_head));
    }
    reply
}

fn is_stream(ask: &UpstreamAsk) -> bool {
    matches!(ask.kind, UpstreamCallKind::Events | UpstreamCallKind::Array)
}

fn events(ask: &UpstreamAsk, generated: &GeneratedAnswer, number: u64, known: &[String]) -> Vec<PlayEvent> {
    match (ask.dialect, ask.kind) {
        (_, UpstreamCallKind::Models) => vec![openai::models(ask, known)],
        (UpstreamDialect::Gemini, UpstreamCallKind::Embeddings) => vec![gemini::embeddings(ask, generated)],
        (_, UpstreamCallKind::Embeddings) => vec![openai::embeddings(ask, generated)],
        (UpstreamDialect::Anthropic, UpstreamCallKind::CountTokens) => vec![anthropic::count_tokens(generated)],
        (_, UpstreamCallKind::CountTokens) => vec![gemini::count_tokens(generated)],
        (UpstreamDialect::OpenAi, UpstreamCallKind::Whole) => vec![openai::whole(ask, generated, number)],
        (UpstreamDialect::OpenAi, _) => openai::events(ask, generated, number),
        (UpstreamDialect::Anthropic, UpstreamCallKind::Whole) => vec![anthropic::whole(ask, generated, number)],
        (UpstreamDialect::Anthropic, _) => anthropic::events(ask, generated, number),
        (UpstreamDialect::Gemini, UpstreamCallKind::Whole) => vec![gemini::whole(ask, generated, number)],
        (UpstreamDialect::Gemini, _) => gemini::events(ask, generated, number),
    }
}

fn error_event(ask: &UpstreamAsk, refusal: &Refusal, is_first: bool) -> String {
    let error = refusal.error(ask.dialect);
    match ask.dialect {
        UpstreamDialect::OpenAi => openai::error_event(&error),
        UpstreamDialect::Anthropic => anthropic::error_event(&error),
        UpstreamDialect::Gemini => gemini::error_event(ask.kind, &error, is_first),
    }
}

/// The usage when the first `kept` events are sent.
fn used_by(events: &[PlayEvent], kept: usize) -> UsageParts {
    let last = kept.min(events.len()).checked_sub(1).and_then(|last| events.get(last));
    last.map_or_else(UsageParts::default, |event| event.used)
}

fn content_type(ask: &UpstreamAsk) -> &'static str {
    match (ask.dialect, ask.kind) {
        (UpstreamDialect::Anthropic, UpstreamCallKind::Events) => "text/event-stream; charset=utf-8",
        (_, UpstreamCallKind::Events) => "text/event-stream",
        (UpstreamDialect::Gemini, _) => "application/json; charset=UTF-8",
        _ => "application/json",
    }
}

/// The headers with the provider's request id and its rate limits.
fn ids(dialect: UpstreamDialect, number: u64) -> Vec<(&'static str, String)> {
    let id = format!("req_stub{number}");
    match dialect {
        UpstreamDialect::OpenAi => vec![
            ("x-request-id", id),
            ("openai-version", "2020-10-01".to_owned()),
            ("x-ratelimit-limit-requests", "10000".to_owned()),
            ("x-ratelimit-remaining-requests", "9999".to_owned()),
            ("x-ratelimit-reset-requests", "6ms".to_owned()),
        ],
        UpstreamDialect::Anthropic => vec![
            ("request-id", id),
            ("anthropic-ratelimit-requests-limit", "10000".to_owned()),
            ("anthropic-ratelimit-requests-remaining", "9999".to_owned()),
        ],
        UpstreamDialect::Gemini => Vec::new(),
    }
}

fn head(status: u16, content_type: &str, headers: &[(&str, String)], framing: PlayFraming, length: usize) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} {}\r\ncontent-type: {content_type}\r\n", reason(status));
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").expect("a string takes text");
    }
    match framing {
        PlayFraming::Length => write!(head, "content-length: {length}\r\n\r\n"),
        PlayFraming::Chunked => write!(head, "transfer-encoding: chunked\r\n\r\n"),
    }
    .expect("a string takes text");
    head.into_bytes()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Other",
    }
}
