//! Gemini's bytes: `generateContent`, its two streams and `countTokens`.
//!
//! Every chunk reports the usage so far. The event stream ends without a mark; the array stream is one JSON array,
//! whose elements arrive one by one.

use std::time::Duration;

use super::ask::{UpstreamAsk, UpstreamCallKind};
use super::fields::{optional, quoted, unless_zero};
use super::generated::{GeneratedAnswer, GeneratedToken};
use super::script::{FinishTold, UsageTold};
use super::steps::PlayEvent;
use super::usage::UsageParts;

const SIGNATURE: &str = "c3R1Yi1zaWduYXR1cmU=";

pub fn whole(ask: &UpstreamAsk, generated: &GeneratedAnswer, number: u64) -> PlayEvent {
    let mut parts = Vec::new();
    let (thinking, text) = (generated.thinking(), generated.text());
    if !thinking.is_empty() {
        parts.push(thought(&thinking));
    }
    if !text.is_empty() {
        parts.push(format!(r#"{{"text":{}}}"#, quoted(&text)));
    }
    parts.extend((0..generated.calls.len()).filter_map(|index| call(generated, index)));
    let all = generated.used_in_all();
    let body = response(ask, generated, number, &parts.join(","), true, generated.tells(all));
    PlayEvent::of(body, all).after(late(generated))
}

pub fn events(ask: &UpstreamAsk, generated: &GeneratedAnswer, number: u64) -> Vec<PlayEvent> {
    let all = generated.used_in_all();
    // Late usage is reported only at the end.
    let tells = |used| if matches!(generated.told, UsageTold::Late(_)) { None } else { generated.tells(used) };
    let mut chunks: Vec<(String, UsageParts)> = Vec::new();
    for (said, token) in generated.tokens.iter().enumerate() {
        let part = match token {
            GeneratedToken::Thought(word) => Some(thought(word)),
            GeneratedToken::Text(word) => Some(format!(r#"{{"text":{}}}"#, quoted(word))),
            // A call is sent as a whole, with its last word.
            GeneratedToken::CallOpens(index) | GeneratedToken::Argument(index, _) => {
                let next = generated.tokens.get(said + 1);
                let goes_on = matches!(next, Some(GeneratedToken::Argument(of, _)) if of == index);
                if goes_on { None } else { call(generated, *index) }
            }
        };
        let used = generated.used(said, 1);
        chunks.extend(part.map(|part| (response(ask, generated, number, &part, false, tells(used)), used)));
    }
    let last = response(ask, generated, number, r#"{"text":""}"#, true, generated.tells(all));
    let count = chunks.len();
    let mut events: Vec<PlayEvent> = chunks
        .into_iter()
        .enumerate()
        .map(|(place, (chunk, used))| PlayEvent::of(framed(ask.kind, &chunk, place == 0), used))
        .collect();
    let end = if ask.kind == UpstreamCallKind::Array { "]" } else { "" };
    events.push(PlayEvent::of(framed(ask.kind, &last, count == 0) + end, all).after(late(generated)));
    events
}

fn framed(kind: UpstreamCallKind, chunk: &str, is_first: bool) -> String {
    match (kind, is_first) {
        (UpstreamCallKind::Array, true) => format!("[{chunk}"),
        (UpstreamCallKind::Array, false) => format!(",\r\n{chunk}"),
        _ => format!("data: {chunk}\r\n\r\n"),
    }
}

/// The error of a failing stream after its first chunks, with the end of the stream.
pub fn error_event(kind: UpstreamCallKind, error: &str, is_first: bool) -> String {
    framed(kind, error, is_first) + if kind == UpstreamCallKind::Array { "]" } else { "" }
}

fn response(
    ask: &UpstreamAsk,
    generated: &GeneratedAnswer,
    number: u64,
    parts: &str,
    is_last: bool,
    told: Option<UsageParts>,
) -> String {
    let tail = format!(
        r#"{},"modelVersion":{},"responseId":"stub{number}""#,
        optional(&[("usageMetadata", told.map(|used| usage(generated, used)))]),
        quoted(&ask.model),
    );
    if generated.finish == FinishTold::PromptBlocked {
        return format!(r#"{{"promptFeedback":{{"blockReason":"SAFETY","safetyRatings":[]}}{tail}}}"#);
    }
    let finish = is_last.then(|| format!("\"{}\"", finish_reason(generated.finish)));
    format!(
        r#"{{"candidates":[{{"content":{{"parts":[{parts}],"role":"model"}}{},"index":0}}]{tail}}}"#,
        optional(&[("finishReason", finish)])
    )
}

fn thought(words: &str) -> String {
    format!(r#"{{"text":{},"thought":true}}"#, quoted(words))
}

/// The part of a call, unless the limit cut it off. The first one carries the signature that must be sent back.
fn call(generated: &GeneratedAnswer, index: usize) -> Option<String> {
    let call = generated.said_calls().into_iter().find(|call| call.index == index && call.is_whole)?;
    let signature = (index == 0).then(|| quoted(SIGNATURE));
    Some(format!(
        r#"{{"functionCall":{{"name":{},"args":{}}}{}}}"#,
        quoted(call.name),
        if call.arguments.is_empty() { "{}" } else { &call.arguments },
        optional(&[("thoughtSignature", signature)]),
    ))
}

pub fn count_tokens(generated: &GeneratedAnswer) -> PlayEvent {
    PlayEvent::of(format!(r#"{{"totalTokens":{}}}"#, generated.used(0, 0).input()), UsageParts::default())
}

/// The same small vector for each content.
pub fn embeddings(ask: &UpstreamAsk, generated: &GeneratedAnswer) -> PlayEvent {
    let used = generated.used(0, 0);
    let usage = generated
        .tells(used)
        .map(|told| format!(r#"{{"promptTokenCount":{},"totalTokenCount":{}}}"#, told.uncached_in, told.uncached_in));
    let vector = r#"{"values":[0.125,0.25,0.375]}"#;
    let requests = ask.body.get("requests").and_then(serde_json::Value::as_array);
    let embedded = match requests {
        Some(requests) => format!(r#""embeddings":[{}]"#, vec![vector; requests.len()].join(",")),
        None => format!(r#""embedding":{vector}"#),
    };
    PlayEvent::of(format!("{{{embedded}{}}}", optional(&[("usageMetadata", usage)])), used).after(late(generated))
}

fn late(generated: &GeneratedAnswer) -> Duration {
    if let UsageTold::Late(pause) = generated.told { pause } else { Duration::ZERO }
}

fn finish_reason(finish: FinishTold) -> &'static str {
    match finish {
        // Gemini has no finish reason of its own for a call.
        FinishTold::Stop | FinishTold::ToolCalls => "STOP",
        FinishTold::Length => "MAX_TOKENS",
        FinishTold::Filtered | FinishTold::PromptBlocked => "SAFETY",
    }
}

/// Thinking is counted beside the candidates here, and cached tokens are part of the prompt.
fn usage(generated: &GeneratedAnswer, used: UsageParts) -> String {
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
            ("trafficType", generated.tier.as_deref().map(quoted)),
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
