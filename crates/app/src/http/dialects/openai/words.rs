//! Parts that complete responses and chunks share.

use domain::ai::{FinishReason, TokenUsage};

pub const fn finish(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::Filtered => "content_filter",
    }
}

/// The prompt includes cached tokens, and the completion includes reasoning.
pub fn usage(used: &TokenUsage) -> String {
    let (input, output) = (used.input(), used.output());
    format!(
        r#"{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":{},"audio_tokens":{}}},"completion_tokens_details":{{"reasoning_tokens":{},"audio_tokens":{},"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}}"#,
        input.saturating_add(output),
        used.cache_read,
        used.audio_input,
        used.reasoning_output,
        used.audio_output,
    )
}
