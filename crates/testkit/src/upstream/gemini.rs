//! Gemini's bytes: `generateContent`, its two streams, `countTokens`.
//!
//! Every chunk tells the usage so far. The events stream ends without a word; the array stream is one JSON array, whose
//! elements come one by one.

use std::time::Duration;

use super::ask::{Ask, Kind};
use super::fields::{optional, quoted, unless_zero};
use super::script::{Finish, UsageTold};
use super::spoken::{Spoken, Token};
use super::steps::Event;
use super::usage::Parts;

const SIGNATURE: &str = "c3R1Yi1zaWduYXR1cmU=";

pub fn whole(ask: &Ask, spoken: &Spoken, number: u64) -> Event {
    let mut parts = Vec::new();
    let (thinking, text) = (spoken.thinking(), spoken.text());
    if !thinking.is_empty() {
        parts.push(thought(&thinking));
    }
    if !text.is_empty() {
        parts.push(format!(r#"{{"text":{}}}"#, quoted(&text)));
    }
    parts.extend((0..spoken.calls.len()).filter_map(|index| call(spoken, index)));
    let all = spoken.used_in_all();
    let body = response(ask, spoken, number, &parts.join(","), true, spoken.tells(all));
    Event::of(body, all).after(late(spoken))
}

pub fn events(ask: &Ask, spoken: &Spoken, number: u64) -> Vec<Event> {
    let all = spoken.used_in_all();
    // Usage that is late is told at the end alone.
    let tells = |used| if matches!(spoken.told, UsageTold::Late(_)) { None } else { spoken.tells(used) };
    let mut chunks: Vec<(String, Parts)> = Vec::new();
    for (said, token) in spoken.tokens.iter().enumerate() {
        let part = match token {
            Token::Thought(word) => Some(thought(word)),
            Token::Text(word) => Some(format!(r#"{{"text":{}}}"#, quoted(word))),
            // A call comes as a whole, with its last word.
            Token::CallOpens(index) | Token::Argument(index, _) => {
                let next = spoken.tokens.get(said + 1);
                let goes_on = matches!(next, Some(Token::Argument(of, _)) if of == index);
                if goes_on { None } else { call(spoken, *index) }
            }
        };
        let used = spoken.used(said, 1);
        chunks.extend(part.map(|part| (response(ask, spoken, number, &part, false, tells(used)), used)));
    }
    let last = response(ask, spoken, number, r#"{"text":""}"#, true, spoken.tells(all));
    let count = chunks.len();
    let mut events: Vec<Event> = chunks
        .into_iter()
        .enumerate()
        .map(|(place, (chunk, used))| Event::of(framed(ask.kind, &chunk, place == 0), used))
        .collect();
    let end = if ask.kind == Kind::Array { "]" } else { "" };
    events.push(Event::of(framed(ask.kind, &last, count == 0) + end, all).after(late(spoken)));
    events
}

fn framed(kind: Kind, chunk: &str, is_first: bool) -> String {
    match (kind, is_first) {
        (Kind::Array, true) => format!("[{chunk}"),
        (Kind::Array, false) => format!(",\r\n{chunk}"),
        _ => format!("data: {chunk}\r\n\r\n"),
    }
}

/// What a stream that goes wrong says after so many chunks, with what ends it.
pub fn error_event(kind: Kind, error: &str, is_first: bool) -> String {
    framed(kind, error, is_first) + if kind == Kind::Array { "]" } else { "" }
}

fn response(ask: &Ask, spoken: &Spoken, number: u64, parts: &str, is_last: bool, told: Option<Parts>) -> String {
    let tail = format!(
        r#"{},"modelVersion":{},"responseId":"stub{number}""#,
        optional(&[("usageMetadata", told.map(|used| usage(spoken, used)))]),
        quoted(&ask.model),
    );
    if spoken.finish == Finish::PromptBlocked {
        return format!(r#"{{"promptFeedback":{{"blockReason":"SAFETY","safetyRatings":[]}}{tail}}}"#);
    }
    let finish = is_last.then(|| format!("\"{}\"", finish_reason(spoken.finish)));
    format!(
        r#"{{"candidates":[{{"content":{{"parts":[{parts}],"role":"model"}}{},"index":0}}]{tail}}}"#,
        optional(&[("finishReason", finish)])
    )
}

fn thought(words: &str) -> String {
    format!(r#"{{"text":{},"thought":true}}"#, quoted(words))
}

/// The part of a call, unless the limit cut it off. The first one carries the signature that must come back.
fn call(spoken: &Spoken, index: usize) -> Option<String> {
    let call = spoken.said_calls().into_iter().find(|call| call.index == index && call.is_whole)?;
    let signature = (index == 0).then(|| quoted(SIGNATURE));
    Some(format!(
        r#"{{"functionCall":{{"name":{},"args":{}}}{}}}"#,
        quoted(call.name),
        if call.arguments.is_empty() { "{}" } else { &call.arguments },
        optional(&[("thoughtSignature", signature)]),
    ))
}

pub fn count_tokens(spoken: &Spoken) -> Event {
    Event::of(format!(r#"{{"totalTokens":{}}}"#, spoken.used(0, 0).input()), Parts::default())
}

/// The same small vector for each content.
pub fn embeddings(ask: &Ask, spoken: &Spoken) -> Event {
    let used = spoken.used(0, 0);
    let usage = spoken
        .tells(used)
        .map(|told| format!(r#"{{"promptTokenCount":{},"totalTokenCount":{}}}"#, told.uncached_in, told.uncached_in));
    let vector = r#"{"values":[0.125,0.25,0.375]}"#;
    let requests = ask.body.get("requests").and_then(serde_json::Value::as_array);
    let embedded = match requests {
        Some(requests) => format!(r#""embeddings":[{}]"#, vec![vector; requests.len()].join(",")),
        None => format!(r#""embedding":{vector}"#),
    };
    Event::of(format!("{{{embedded}{}}}", optional(&[("usageMetadata", usage)])), used).after(late(spoken))
}

fn late(spoken: &Spoken) -> Duration {
    if let UsageTold::Late(pause) = spoken.told { pause } else { Duration::ZERO }
}

fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        // Gemini has no reason of its own for a call.
        Finish::Stop | Finish::ToolCalls => "STOP",
        Finish::Length => "MAX_TOKENS",
        Finish::Filtered | Finish::PromptBlocked => "SAFETY",
    }
}

/// Thoughts stand beside the candidates here, and what was cached within the prompt.
fn usage(spoken: &Spoken, used: Parts) -> String {
    let candidates = used.out_visible + used.audio_out + used.image_out;
    let prompt = used.input() - used.tool_prompt;
    let text_in = prompt - used.audio_in - used.image_in;
    let out_is_text = used.audio_out + used.image_out == 0;
    let details_out = modalities(used.out_visible, used.audio_out, used.image_out);
    format!(
        r#"{{"promptTokenCount":{prompt},"candidatesTokenCount":{candidates}{},"totalTokenCount":{},"promptTokensDetails":{}{}}}"#,
        optional(&[
            ("cachedContentTokenCount", unless_zero(used.cache_read)),
            ("toolUsePromptTokenCount", unless_zero(used.tool_prompt)),
            ("thoughtsTokenCount", unless_zero(used.out_reasoning)),
        ]),
        used.input() + used.output(),
        modalities(text_in, used.audio_in, used.image_in),
        optional(&[
            ("candidatesTokensDetails", (!out_is_text).then_some(details_out)),
            ("trafficType", spoken.tier.as_deref().map(quoted)),
        ]),
    )
}

fn modalities(text: u64, audio: u64, image: u64) -> String {
    let known = [("TEXT", text), ("AUDIO", audio), ("IMAGE", image)];
    let said = known.iter().filter(|(name, tokens)| *name == "TEXT" || *tokens > 0);
    let said: Vec<String> =
        said.map(|(name, tokens)| format!(r#"{{"modality":"{name}","tokenCount":{tokens}}}"#)).collect();
    format!("[{}]", said.join(","))
}
