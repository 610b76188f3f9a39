//! Anthropic's bytes: messages, their stream, `count_tokens`.
//!
//! `message_start` tells the input and one token of output, `message_delta` the whole, cumulative.

use std::time::Duration;

use super::ask::Ask;
use super::fields::{optional, quoted, unless_zero};
use super::script::{Finish, UsageTold};
use super::spoken::{Spoken, Token};
use super::steps::Event;
use super::usage::Parts;

const SIGNATURE: &str = "c3R1Yi1zaWduYXR1cmU=";

pub fn whole(ask: &Ask, spoken: &Spoken, number: u64) -> Event {
    let mut blocks = Vec::new();
    let (thinking, text) = (spoken.thinking(), spoken.text());
    if !thinking.is_empty() {
        blocks.push(format!(r#"{{"type":"thinking","thinking":{},"signature":"{SIGNATURE}"}}"#, quoted(&thinking)));
    }
    if !text.is_empty() {
        blocks.push(format!(r#"{{"type":"text","text":{}}}"#, quoted(&text)));
    }
    blocks.extend(spoken.said_calls().iter().map(|call| {
        // An input is an object: what the limit cut off is none and shows as an empty one.
        let input = if call.is_whole { &call.arguments } else { "{}" };
        format!(
            r#"{{"type":"tool_use","id":"toolu_stub{number}_{}","name":{},"input":{input}}}"#,
            call.index,
            quoted(call.name)
        )
    }));
    let all = spoken.used_in_all();
    let usage = spoken.tells(all).map(|told| usage(spoken, told));
    let stop = format!("\"{}\"", stop_reason(spoken.finish));
    Event::of(message(ask, number, &blocks.join(","), &stop, usage), all).after(late(spoken))
}

fn message(ask: &Ask, number: u64, blocks: &str, stop: &str, usage: Option<String>) -> String {
    format!(
        r#"{{"id":"msg_stub{number}","type":"message","role":"assistant","model":{},"content":[{blocks}],"stop_reason":{stop},"stop_sequence":null{}}}"#,
        quoted(&ask.model),
        optional(&[("usage", usage)]),
    )
}

/// Which block of the content a token belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Thinking,
    Text,
    Call(usize),
}

pub fn events(ask: &Ask, spoken: &Spoken, number: u64) -> Vec<Event> {
    let at_start = Parts { out_visible: 1, ..spoken.used(0, 0) };
    let usage_at_start = spoken.tells(at_start).map(|told| usage(spoken, told));
    let start = message(ask, number, "", "null", usage_at_start);
    let start = format!(r#"{{"type":"message_start","message":{start}}}"#);
    let mut events = vec![Event::of(named("message_start", &start), spoken.used(0, 0))];
    let mut open: Option<(usize, Block)> = None;
    for (said, token) in spoken.tokens.iter().enumerate() {
        let block = block_of(token);
        if open.is_none_or(|(_, current)| current != block) {
            let before = spoken.used(said, 0);
            let index = open.map_or(0, |(index, _)| index + 1);
            events.extend(closing(open).into_iter().map(|text| Event::of(text, before)));
            events.push(Event::of(opening(spoken, number, index, block), before));
            if index == 0 {
                events.push(Event::of(named("ping", r#"{"type":"ping"}"#), before));
            }
            open = Some((index, block));
        }
        let index = open.map_or(0, |(index, _)| index);
        events.push(Event::of(delta(index, token), spoken.used(said, 1)));
    }
    let all = spoken.used_in_all();
    events.extend(closing(open).into_iter().map(|text| Event::of(text, spoken.used(spoken.tokens.len(), 0))));
    let usage = spoken.tells(all).map(|told| usage(spoken, told));
    let last = format!(
        r#"{{"type":"message_delta","delta":{{"stop_reason":"{}","stop_sequence":null}}{}}}"#,
        stop_reason(spoken.finish),
        optional(&[("usage", usage)]),
    );
    events.push(Event::of(named("message_delta", &last), all).after(late(spoken)));
    events.push(Event::of(named("message_stop", r#"{"type":"message_stop"}"#), all));
    events
}

fn block_of(token: &Token) -> Block {
    match token {
        Token::Thought(_) => Block::Thinking,
        Token::Text(_) => Block::Text,
        Token::CallOpens(index) | Token::Argument(index, _) => Block::Call(*index),
    }
}

fn opening(spoken: &Spoken, number: u64, index: usize, block: Block) -> String {
    let content = match block {
        Block::Thinking => r#"{"type":"thinking","thinking":"","signature":""}"#.to_owned(),
        Block::Text => r#"{"type":"text","text":""}"#.to_owned(),
        Block::Call(call) => {
            let name = spoken.calls.get(call).map_or("", |call| &call.name);
            format!(r#"{{"type":"tool_use","id":"toolu_stub{number}_{call}","name":{},"input":{{}}}}"#, quoted(name))
        }
    };
    let data = format!(r#"{{"type":"content_block_start","index":{index},"content_block":{content}}}"#);
    named("content_block_start", &data)
}

fn delta(index: usize, token: &Token) -> String {
    let delta = match token {
        Token::Thought(word) => format!(r#"{{"type":"thinking_delta","thinking":{}}}"#, quoted(word)),
        Token::Text(word) => format!(r#"{{"type":"text_delta","text":{}}}"#, quoted(word)),
        Token::CallOpens(_) => r#"{"type":"input_json_delta","partial_json":""}"#.to_owned(),
        Token::Argument(_, word) => format!(r#"{{"type":"input_json_delta","partial_json":{}}}"#, quoted(word)),
    };
    block_delta(index, &delta)
}

fn block_delta(index: usize, delta: &str) -> String {
    named("content_block_delta", &format!(r#"{{"type":"content_block_delta","index":{index},"delta":{delta}}}"#))
}

/// A block of thoughts is signed before it ends.
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

/// What the prompt would use. Counting is free.
pub fn count_tokens(spoken: &Spoken) -> Event {
    Event::of(format!(r#"{{"input_tokens":{}}}"#, spoken.used(0, 0).input()), Parts::default())
}

fn late(spoken: &Spoken) -> Duration {
    if let UsageTold::Late(pause) = spoken.told { pause } else { Duration::ZERO }
}

fn stop_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "end_turn",
        Finish::Length => "max_tokens",
        Finish::ToolCalls => "tool_use",
        Finish::Filtered | Finish::PromptBlocked => "refusal",
    }
}

/// The three parts of the input do not overlap here. `fast` is a speed, not a tier.
fn usage(spoken: &Spoken, used: Parts) -> String {
    let tier = spoken.tier.as_deref().unwrap_or("standard");
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
            ("inference_geo", spoken.geo.as_deref().map(quoted)),
            ("server_tool_use", searches),
        ]),
    )
}
