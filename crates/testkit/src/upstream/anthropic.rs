//! Anthropic's bytes: messages, their stream and `count_tokens`.
//!
//! `message_start` reports the input and one token of output, `message_delta` the whole, cumulative.

use std::time::Duration;

use super::ask::UpstreamAsk;
use super::fields::{optional, quoted, unless_zero};
use super::generated::{GeneratedAnswer, GeneratedToken};
use super::script::{FinishTold, UsageTold};
use super::steps::PlayEvent;
use super::usage::UsageParts;

const SIGNATURE: &str = "c3R1Yi1zaWduYXR1cmU=";

pub fn whole(ask: &UpstreamAsk, generated: &GeneratedAnswer, number: u64) -> PlayEvent {
    let mut blocks = Vec::new();
    let (thinking, text) = (generated.thinking(), generated.text());
    if !thinking.is_empty() {
        blocks.push(format!(r#"{{"type":"thinking","thinking":{},"signature":"{SIGNATURE}"}}"#, quoted(&thinking)));
    }
    if !text.is_empty() {
        blocks.push(format!(r#"{{"type":"text","text":{}}}"#, quoted(&text)));
    }
    blocks.extend(generated.said_calls().iter().map(|call| {
        // An input must be an object: one that the limit cut off is sent as an empty object.
        let input = if call.is_whole { &call.arguments } else { "{}" };
        format!(
            r#"{{"type":"tool_use","id":"toolu_stub{number}_{}","name":{},"input":{input}}}"#,
            call.index,
            quoted(call.name)
        )
    }));
    let all = generated.used_in_all();
    let usage = generated.tells(all).map(|told| usage(generated, told));
    let stop = format!("\"{}\"", stop_reason(generated.finish));
    PlayEvent::of(message(ask, number, &blocks.join(","), &stop, usage), all).after(late(generated))
}

fn message(ask: &UpstreamAsk, number: u64, blocks: &str, stop: &str, usage: Option<String>) -> String {
    format!(
        r#"{{"id":"msg_stub{number}","type":"message","role":"assistant","model":{},"content":[{blocks}],"stop_reason":{stop},"stop_sequence":null{}}}"#,
        quoted(&ask.model),
        optional(&[("usage", usage)]),
    )
}

/// The content block that a token belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Thinking,
    Text,
    Call(usize),
}

pub fn events(ask: &UpstreamAsk, generated: &GeneratedAnswer, number: u64) -> Vec<PlayEvent> {
    let at_start = UsageParts { out_visible: 1, ..generated.used(0, 0) };
    let usage_at_start = generated.tells(at_start).map(|told| usage(generated, told));
    let start = message(ask, number, "", "null", usage_at_start);
    let start = format!(r#"{{"type":"message_start","message":{start}}}"#);
    let mut events = vec![PlayEvent::of(named("message_start", &start), generated.used(0, 0))];
    let mut open: Option<(usize, Block)> = None;
    for (said, token) in generated.tokens.iter().enumerate() {
        let block = block_of(token);
        if open.is_none_or(|(_, current)| current != block) {
            let before = generated.used(said, 0);
            let index = open.map_or(0, |(index, _)| index + 1);
            events.extend(closing(open).into_iter().map(|text| PlayEvent::of(text, before)));
            events.push(PlayEvent::of(opening(generated, number, index, block), before));
            if index == 0 {
                events.push(PlayEvent::of(named("ping", r#"{"type":"ping"}"#), before));
            }
            open = Some((index, block));
        }
        let index = open.map_or(0, |(index, _)| index);
        events.push(PlayEvent::of(delta(index, token), generated.used(said, 1)));
    }
    let all = generated.used_in_all();
    events.extend(closing(open).into_iter().map(|text| PlayEvent::of(text, generated.used(generated.tokens.len(), 0))));
    let usage = generated.tells(all).map(|told| usage(generated, told));
    let last = format!(
        r#"{{"type":"message_delta","delta":{{"stop_reason":"{}","stop_sequence":null}}{}}}"#,
        stop_reason(generated.finish),
        optional(&[("usage", usage)]),
    );
    events.push(PlayEvent::of(named("message_delta", &last), all).after(late(generated)));
    events.push(PlayEvent::of(named("message_stop", r#"{"type":"message_stop"}"#), all));
    events
}

fn block_of(token: &GeneratedToken) -> Block {
    match token {
        GeneratedToken::Thought(_) => Block::Thinking,
        GeneratedToken::Text(_) => Block::Text,
        GeneratedToken::CallOpens(index) | GeneratedToken::Argument(index, _) => Block::Call(*index),
    }
}

fn opening(generated: &GeneratedAnswer, number: u64, index: usize, block: Block) -> String {
    let content = match block {
        Block::Thinking => r#"{"type":"thinking","thinking":"","signature":""}"#.to_owned(),
        Block::Text => r#"{"type":"text","text":""}"#.to_owned(),
        Block::Call(call) => {
            let name = generated.calls.get(call).map_or("", |call| &call.name);
            format!(r#"{{"type":"tool_use","id":"toolu_stub{number}_{call}","name":{},"input":{{}}}}"#, quoted(name))
        }
    };
    let data = format!(r#"{{"type":"content_block_start","index":{index},"content_block":{content}}}"#);
    named("content_block_start", &data)
}

fn delta(index: usize, token: &GeneratedToken) -> String {
    let delta = match token {
        GeneratedToken::Thought(word) => format!(r#"{{"type":"thinking_delta","thinking":{}}}"#, quoted(word)),
        GeneratedToken::Text(word) => format!(r#"{{"type":"text_delta","text":{}}}"#, quoted(word)),
        GeneratedToken::CallOpens(_) => r#"{"type":"input_json_delta","partial_json":""}"#.to_owned(),
        GeneratedToken::Argument(_, word) => {
            format!(r#"{{"type":"input_json_delta","partial_json":{}}}"#, quoted(word))
        }
    };
    block_delta(index, &delta)
}

fn block_delta(index: usize, delta: &str) -> String {
    named("content_block_delta", &format!(r#"{{"type":"content_block_delta","index":{index},"delta":{delta}}}"#))
}

/// A thinking block is signed before it ends.
fn closing(open: Option<(usize, Block)>) -> Vec<String> {
    let Some((index, block)) = open else { return Vec::new() };
    let stop = named("content_block_stop", &format!(r#"{{"type":"content_block_stop","index":{index}}}"#));
    if block == Block::Thinking {
        let signature = format!(r#"{{"type":"signature_delta","signature":"{SIGNATURE}"}}"#);
        vec![block_delta(index, &signature), stop]
    } else {
        vec![stop]
    }
}

fn named(name: &str, data: &str) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

pub fn error_event(error: &str) -> String {
    named("error", error)
}

/// The tokens that the prompt would use. Counting is free.
pub fn count_tokens(generated: &GeneratedAnswer) -> PlayEvent {
    PlayEvent::of(format!(r#"{{"input_tokens":{}}}"#, generated.used(0, 0).input()), UsageParts::default())
}

fn late(generated: &GeneratedAnswer) -> Duration {
    if let UsageTold::Late(pause) = generated.told { pause } else { Duration::ZERO }
}

fn stop_reason(finish: FinishTold) -> &'static str {
    match finish {
        FinishTold::Stop => "end_turn",
        FinishTold::Length => "max_tokens",
        FinishTold::ToolCalls => "tool_use",
        FinishTold::Filtered | FinishTold::PromptBlocked => "refusal",
    }
}

/// The three parts of the input do not overlap here. `fast` is a speed, not a tier.
fn usage(generated: &GeneratedAnswer, used: UsageParts) -> String {
    let tier = generated.tier.as_deref().unwrap_or("standard");
    let (tier, speed) = if tier == "fast" { ("standard", Some(quoted("fast"))) } else { (tier, None) };
    let searches = unless_zero(used.web_searches).map(|number| format!(r#"{{"web_search_requests":{number}}}"#));
    format!(
        r#"{{"input_tokens":{},"cache_creation_input_tokens":{},"cache_read_input_tokens":{},"cache_creation":{{"ephemeral_5m_input_tokens":{},"ephemeral_1h_input_tokens":{}}},"output_tokens":{},"service_tier":{}{}}}"#,
        used.uncached_in,
        used.cache_write_short + used.cache_write_long,
        used.cache_read,
        used.cache_write_short,
        used.cache_write_long,
        used.output(),
        quoted(tier),
        optional(&[
            ("speed", speed),
            ("inference_geo", generated.geo.as_deref().map(quoted)),
            ("server_tool_use", searches),
        ]),
    )
}
