//! Parts that complete messages and events share.

use domain::ai::{FinishReason, TokenUsage};

pub const fn stop_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "end_turn",
        FinishReason::Length => "max_tokens",
        FinishReason::ToolCalls => "tool_use",
        FinishReason::Filtered => "refusal",
    }
}

/// The three parts of the input do not overlap.
pub fn usage(used: &TokenUsage) -> String {
    let written = used.cache_write_short.saturating_add(used.cache_write_long);
    let input = used.input().saturating_sub(written).saturating_sub(used.cache_read);
    format!(
        r#"{{"input_tokens":{input},"cache_creation_input_tokens":{written},"cache_read_input_tokens":{},"output_tokens":{}}}"#,
        used.cache_read,
        used.output(),
    )
}

/// The event without content, as Anthropic sends it.
pub const PING: &[u8] = b"event: ping\ndata: {\"type\": \"ping\"}\n\n";

/// An event; its name is its type.
pub fn event(name: &str, data: &str) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

/// The two events that end a message.
pub fn closing(stop_reason: &str, usage: Option<String>) -> String {
    let usage = usage.unwrap_or_else(|| r#"{"output_tokens":0}"#.to_owned());
    let delta = format!(
        r#"{{"type":"message_delta","delta":{{"stop_reason":"{stop_reason}","stop_sequence":null}},"usage":{usage}}}"#
    );
    event("message_delta", &delta) + &event("message_stop", r#"{"type":"message_stop"}"#)
}

pub fn block_stop(index: u64) -> String {
    event("content_block_stop", &format!(r#"{{"type":"content_block_stop","index":{index}}}"#))
}
