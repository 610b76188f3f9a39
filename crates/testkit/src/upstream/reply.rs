//! The one function of the stub: what a request gets under a script. It is pure.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::ask::{Ask, Dialect, Kind};
use super::refusals::{Refusal, Refused};
use super::script::{Answer, Fault, Script};
use super::spoken::Spoken;
use super::steps::{Event, Framing, Step, of_body};
use super::usage::Parts;
use super::{anthropic, gemini, openai};

pub struct Reply {
    /// What the head says, or 0 where none is sent.
    pub status: u16,
    pub is_stream: bool,
    pub steps: Vec<Step>,
}

const GARBAGE: &[u8] = b"\x00\xff\xfe{\"oops\": [1, 2,\ndata: {\"choices\"\n\x80\n\n";

pub fn to(ask: &Ask, script: &Script, number: u64, known: &[String]) -> Reply {
    match &script.fault {
        Some(Fault::Refuse(refusal)) => return before(script, refused(ask.dialect, refusal, number)),
        Some(Fault::ErrorWith200(refusal)) => {
            let error = Refused { status: 200, ..refusal.rendered(ask.dialect) };
            return before(script, told(ask.dialect, error, number));
        }
        Some(Fault::ErrorAfter { refusal, .. }) if !is_stream(ask) => {
            return before(script, refused(ask.dialect, refusal, number));
        }
        Some(Fault::HangBeforeHead) => return before(script, nothing(Step::Hang)),
        Some(Fault::ResetBeforeHead) => return before(script, nothing(Step::Reset)),
        Some(Fault::CloseBeforeHead) => return before(script, nothing(Step::Close)),
        _ => {}
    }
    let answer = answer_to(ask, &script.answer);
    let spoken = Spoken::of(ask, &answer, script.usage);
    let mut events = events(ask, &spoken, number, known);
    match &script.fault {
        Some(Fault::EndAfter { events: kept }) => events.truncate(*kept),
        Some(Fault::ErrorAfter { events: kept, refusal }) => {
            let used = used_by(&events, *kept);
            events.truncate(*kept);
            events.push(Event::of(error_event(ask, refusal, *kept == 0), used));
        }
        Some(Fault::Garbage { after_events }) => {
            let kept = if is_stream(ask) { *after_events } else { 0 };
            let used = used_by(&events, kept);
            events.truncate(kept);
            events.push(Event { bytes: GARBAGE.to_vec(), ..Event::of("", used) });
        }
        _ => {}
    }
    let framing = if is_stream(ask) { Framing::Chunked } else { Framing::Length };
    let content_type = match &script.fault {
        Some(Fault::WrongContentType(wrong)) => wrong,
        _ => content_type(ask),
    };
    let length: usize = events.iter().map(|event| event.bytes.len()).sum();
    let head = head(200, content_type, &ids(ask.dialect, number), framing, length);
    let mut steps = of_body(&events, &script.pace, script.fault.as_ref(), script.charges, framing);
    match steps.first_mut() {
        // One write for a plain answer that is whole, as servers do.
        Some(Step::Write { wire, body, .. }) if framing == Framing::Length && *body == length => {
            wire.splice(0..0, head);
        }
        _ => steps.insert(0, Step::Write { wire: head, body: 0, used: Parts::default() }),
    }
    before(script, Reply { status: 200, is_stream: is_stream(ask), steps })
}

fn answer_to<'script>(ask: &Ask, answer: &'script Answer) -> Cow<'script, Answer> {
    match &answer.after_result {
        Some(text) if !ask.offers_tools() || ask.brings_result() => {
            Cow::Owned(Answer { text: text.clone(), calls: Vec::new(), ..answer.clone() })
        }
        _ => Cow::Borrowed(answer),
    }
}

/// What a provider answers that was not asked in the right way, whatever the script says.
pub fn refused(dialect: Dialect, refusal: &Refusal, number: u64) -> Reply {
    told(dialect, refusal.rendered(dialect), number)
}

fn told(dialect: Dialect, refused: Refused, number: u64) -> Reply {
    let mut headers = ids(dialect, number);
    headers.extend(refused.headers);
    let length = refused.body.len();
    let mut wire = head(refused.status, refused.content_type, &headers, Framing::Length, length);
    wire.extend(refused.body.into_bytes());
    let steps = vec![Step::Write { wire, body: length, used: Parts::default() }];
    Reply { status: refused.status, is_stream: false, steps }
}

fn nothing(step: Step) -> Reply {
    Reply { status: 0, is_stream: false, steps: vec![step] }
}

fn before(script: &Script, mut reply: Reply) -> Reply {
    if !script.pace.before_head.is_zero() {
        reply.steps.insert(0, Step::Wait(script.pace.before_head));
    }
    reply
}

fn is_stream(ask: &Ask) -> bool {
    matches!(ask.kind, Kind::Events | Kind::Array)
}

fn events(ask: &Ask, spoken: &Spoken, number: u64, known: &[String]) -> Vec<Event> {
    match (ask.dialect, ask.kind) {
        (_, Kind::Models) => vec![openai::models(ask, known)],
        (Dialect::Gemini, Kind::Embeddings) => vec![gemini::embeddings(ask, spoken)],
        (_, Kind::Embeddings) => vec![openai::embeddings(ask, spoken)],
        (Dialect::Anthropic, Kind::CountTokens) => vec![anthropic::count_tokens(spoken)],
        (_, Kind::CountTokens) => vec![gemini::count_tokens(spoken)],
        (Dialect::OpenAi, Kind::Whole) => vec![openai::whole(ask, spoken, number)],
        (Dialect::OpenAi, _) => openai::events(ask, spoken, number),
        (Dialect::Anthropic, Kind::Whole) => vec![anthropic::whole(ask, spoken, number)],
        (Dialect::Anthropic, _) => anthropic::events(ask, spoken, number),
        (Dialect::Gemini, Kind::Whole) => vec![gemini::whole(ask, spoken, number)],
        (Dialect::Gemini, _) => gemini::events(ask, spoken, number),
    }
}

fn error_event(ask: &Ask, refusal: &Refusal, is_first: bool) -> String {
    let error = refusal.error(ask.dialect);
    match ask.dialect {
        Dialect::OpenAi => openai::error_event(&error),
        Dialect::Anthropic => anthropic::error_event(&error),
        Dialect::Gemini => gemini::error_event(ask.kind, &error, is_first),
    }
}

/// What was used when the first `kept` events are sent.
fn used_by(events: &[Event], kept: usize) -> Parts {
    let last = kept.min(events.len()).checked_sub(1).and_then(|last| events.get(last));
    last.map_or_else(Parts::default, |event| event.used)
}

fn content_type(ask: &Ask) -> &'static str {
    match (ask.dialect, ask.kind) {
        (Dialect::Anthropic, Kind::Events) => "text/event-stream; charset=utf-8",
        (_, Kind::Events) => "text/event-stream",
        (Dialect::Gemini, _) => "application/json; charset=UTF-8",
        _ => "application/json",
    }
}

/// The headers by which a provider names the request and tells its own limits.
fn ids(dialect: Dialect, number: u64) -> Vec<(&'static str, String)> {
    let id = format!("req_stub{number}");
    match dialect {
        Dialect::OpenAi => vec![
            ("x-request-id", id),
            ("openai-version", "2020-10-01".to_owned()),
            ("x-ratelimit-limit-requests", "10000".to_owned()),
            ("x-ratelimit-remaining-requests", "9999".to_owned()),
            ("x-ratelimit-reset-requests", "6ms".to_owned()),
        ],
        Dialect::Anthropic => vec![
            ("request-id", id),
            ("anthropic-ratelimit-requests-limit", "10000".to_owned()),
            ("anthropic-ratelimit-requests-remaining", "9999".to_owned()),
        ],
        Dialect::Gemini => Vec::new(),
    }
}

fn head(status: u16, content_type: &str, headers: &[(&str, String)], framing: Framing, length: usize) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} {}\r\ncontent-type: {content_type}\r\n", reason(status));
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").expect("a string takes text");
    }
    match framing {
        Framing::Length => write!(head, "content-length: {length}\r\n\r\n"),
        Framing::Chunked => write!(head, "transfer-encoding: chunked\r\n\r\n"),
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
