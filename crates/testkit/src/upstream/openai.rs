//! OpenAI's bytes: chat completions, their stream, embeddings, models.
//!
//! Thinking is counted and not shown. In a stream the choices take turns, one token each.

use std::time::Duration;

use serde_json::Value;

use super::ask::UpstreamAsk;
use super::fields::{optional, quoted, unless_zero};
use super::generated::{GeneratedAnswer, GeneratedToken};
use super::script::{FinishTold, UsageTold};
use super::steps::PlayEvent;
use super::usage::UsageParts;

/// 1 January 2026: the stub has no clock.
const CREATED: u64 = 1_767_225_600;
const PADDING: &str = "q7Xm2Lc9Rv4Tz1Kb";

pub fn whole(ask: &UpstreamAsk, generated: &GeneratedAnswer, number: u64) -> PlayEvent {
    let choices: Vec<String> = (0..generated.choices).map(|index| choice(generated, number, index)).collect();
    let usage = generated.tells(generated.used_in_all()).map(usage);
    let body = format!(
        r#"{{"id":"chatcmpl-stub{number}","object":"chat.completion","created":{CREATED},"model":{},"choices":[{}]{},"service_tier":{},"system_fingerprint":"fp_stub"}}"#,
        quoted(&ask.model),
        choices.join(","),
        optional(&[("usage", usage)]),
        tier(generated),
    );
    PlayEvent::of(body, generated.used_in_all()).after(late(generated))
}

fn choice(generated: &GeneratedAnswer, number: u64, index: u64) -> String {
    let calls: Vec<String> = generated
        .said_calls()
        .iter()
        .map(|call| {
            format!(
                r#"{{"id":"call_stub{number}_{index}_{}","type":"function","function":{{"name":{},"arguments":{}}}}}"#,
                call.index,
                quoted(call.name),
                quoted(&call.arguments),
            )
        })
        .collect();
    let text = generated.text();
    let content = if text.is_empty() && !calls.is_empty() { "null".to_owned() } else { quoted(&text) };
    let calls = (!calls.is_empty()).then(|| format!("[{}]", calls.join(",")));
    format!(
        r#"{{"index":{index},"message":{{"role":"assistant","content":{content},"refusal":null{},"annotations":[]}},"logprobs":null,"finish_reason":"{}"}}"#,
        optional(&[("tool_calls", calls)]),
        finish(generated.finish),
    )
}

pub fn events(ask: &UpstreamAsk, generated: &GeneratedAnswer, number: u64) -> Vec<PlayEvent> {
    let chunk = |choices: &str, usage: &str, length: usize| {
        let padding: String = PADDING.chars().take(PADDING.len() - length % PADDING.len()).collect();
        let padding = ask.obfuscation.then(|| quoted(&padding));
        format!(
            "data: {{\"id\":\"chatcmpl-stub{number}\",\"object\":\"chat.completion.chunk\",\"created\":{CREATED},\"model\":{},\
             \"service_tier\":{},\"system_fingerprint\":\"fp_stub\",\"choices\":[{choices}]{usage}{}}}\n\n",
            quoted(&ask.model),
            tier(generated),
            optional(&[("obfuscation", padding)]),
        )
    };
    // With include_usage every chunk has the field, and a chunk without choices fills it.
    let no_usage = if ask.include_usage { r#","usage":null"# } else { "" };
    let one = |index: u64, delta: &str, finish: &str| {
        let choice = format!(r#"{{"index":{index},"delta":{delta},"logprobs":null,"finish_reason":{finish}}}"#);
        chunk(&choice, no_usage, delta.len())
    };
    let thoughts = generated.tokens.iter().take_while(|token| matches!(token, GeneratedToken::Thought(_))).count();
    let role = r#"{"role":"assistant","content":"","refusal":null}"#;
    let mut events: Vec<PlayEvent> = (0..generated.choices)
        .map(|index| PlayEvent::of(one(index, role, "null"), generated.used(thoughts, 0)))
        .collect();
    for (said, token) in generated.tokens.iter().enumerate().skip(thoughts) {
        for index in 0..generated.choices {
            let used = generated.used(said, index + 1);
            events.push(PlayEvent::of(one(index, &delta(generated, token, number, index), "null"), used));
        }
    }
    let all = generated.used_in_all();
    let reason = format!("\"{}\"", finish(generated.finish));
    events.extend((0..generated.choices).map(|index| PlayEvent::of(one(index, "{}", &reason), all)));
    if let (true, Some(told)) = (ask.include_usage, generated.tells(all)) {
        let usage = format!(r#","usage":{}"#, usage(told));
        events.push(PlayEvent::of(chunk("", &usage, usage.len()), all).after(late(generated)));
    }
    events.push(PlayEvent::of("data: [DONE]\n\n", all));
    events
}

fn delta(generated: &GeneratedAnswer, token: &GeneratedToken, number: u64, choice: u64) -> String {
    match token {
        GeneratedToken::Thought(word) | GeneratedToken::Text(word) => format!(r#"{{"content":{}}}"#, quoted(word)),
        GeneratedToken::CallOpens(index) => {
            let name = generated.calls.get(*index).map_or("", |call| &call.name);
            format!(
                r#"{{"tool_calls":[{{"index":{index},"id":"call_stub{number}_{choice}_{index}","type":"function","function":{{"name":{},"arguments":""}}}}]}}"#,
                quoted(name)
            )
        }
        GeneratedToken::Argument(index, word) => {
            format!(r#"{{"tool_calls":[{{"index":{index},"function":{{"arguments":{}}}}}]}}"#, quoted(word))
        }
    }
}

/// The error event of a failing stream.
pub fn error_event(error: &str) -> String {
    format!("data: {error}\n\n")
}

fn late(generated: &GeneratedAnswer) -> Duration {
    if let UsageTold::Late(pause) = generated.told { pause } else { Duration::ZERO }
}

fn tier(generated: &GeneratedAnswer) -> String {
    quoted(generated.tier.as_deref().unwrap_or("default"))
}

fn finish(finish: FinishTold) -> &'static str {
    match finish {
        FinishTold::Stop => "stop",
        FinishTold::Length => "length",
        FinishTold::ToolCalls => "tool_calls",
        FinishTold::Filtered | FinishTold::PromptBlocked => "content_filter",
    }
}

fn usage(used: UsageParts) -> String {
    let (input, output) = (used.input(), used.output());
    format!(
        r#"{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":{},"audio_tokens":{}{}}},"completion_tokens_details":{{"reasoning_tokens":{},"audio_tokens":{},"accepted_prediction_tokens":0,"rejected_prediction_tokens":{}{}}}}}"#,
        input + output,
        used.cache_read,
        used.audio_in,
        optional(&[
            ("cache_write_tokens", unless_zero(used.cache_write_short)),
            ("image_tokens", unless_zero(used.image_in)),
        ]),
        used.out_reasoning,
        used.audio_out,
        used.out_rejected,
        optional(&[("image_tokens", unless_zero(used.image_out))]),
    )
}

/// A vector for each input, of the requested size up to 4096. The numbers depend on their place alone.
pub fn embeddings(ask: &UpstreamAsk, generated: &GeneratedAnswer) -> PlayEvent {
    let used = generated.used(0, 0);
    let size = ask.body.get("dimensions").and_then(Value::as_u64).unwrap_or(8).min(4096);
    let as_text = ask.body.get("encoding_format").and_then(Value::as_str) == Some("base64");
    let inputs = match ask.body.get("input") {
        Some(Value::Array(items)) if !items.iter().all(Value::is_number) => items.len(),
        _ => 1,
    };
    let vectors: Vec<String> = (0..inputs)
        .map(|index| {
            // Eighths are exact in every floating-point width.
            let numbers = (0..size).map(|place| f32::from(u8::try_from((place + 1) % 8).unwrap_or(0)) / 8.0);
            let vector = if as_text {
                quoted(&base64(&numbers.flat_map(f32::to_le_bytes).collect::<Vec<u8>>()))
            } else {
                format!("[{}]", numbers.map(|number| number.to_string()).collect::<Vec<_>>().join(","))
            };
            format!(r#"{{"object":"embedding","index":{index},"embedding":{vector}}}"#)
        })
        .collect();
    let usage = generated
        .tells(used)
        .map(|told| format!(r#"{{"prompt_tokens":{},"total_tokens":{}}}"#, told.uncached_in, told.uncached_in));
    let body = format!(
        r#"{{"object":"list","data":[{}],"model":{}{}}}"#,
        vectors.join(","),
        quoted(&ask.model),
        optional(&[("usage", usage)])
    );
    PlayEvent::of(body, used).after(late(generated))
}

pub fn models(ask: &UpstreamAsk, known: &[String]) -> PlayEvent {
    let model =
        |name: &str| format!(r#"{{"id":{},"object":"model","created":{CREATED},"owned_by":"stub"}}"#, quoted(name));
    let body = if ask.model.is_empty() {
        let all: Vec<String> = known.iter().map(|name| model(name)).collect();
        format!(r#"{{"object":"list","data":[{}]}}"#, all.join(","))
    } else {
        model(&ask.model)
    };
    PlayEvent::of(body, UsageParts::default())
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let mut group = 0_u32;
        for place in 0..3 {
            group = group << 8 | u32::from(three.get(place).copied().unwrap_or(0));
        }
        for place in 0..4 {
            let digit = usize::try_from(group >> (18 - 6 * place) & 63).unwrap_or(0);
            let letter = ALPHABET.get(digit).copied().unwrap_or(b'=');
            text.push(if place > three.len() { '=' } else { char::from(letter) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        let known =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")];
        for (plain, encoded) in known {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }
}
