//! Parts that complete responses and chunks share.

use domain::ai::{FinishReason, TokenUsage};

use crate::http::dialects::rendering::{RenderedToolCall, quoted};

pub const fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        // Gemini has no finish reason for a call.
        FinishReason::Stop | FinishReason::ToolCalls => "STOP",
        FinishReason::Length => "MAX_TOKENS",
        FinishReason::Filtered => "SAFETY",
    }
}

/// The prompt includes cached tokens; thoughts are counted apart from the candidates.
pub fn usage(used: &TokenUsage) -> String {
    let candidates = used.output().saturating_sub(used.reasoning_output);
    let optional = |name: &str, tokens: u64| if tokens == 0 { String::new() } else { format!(r#","{name}":{tokens}"#) };
    format!(
        r#"{{"promptTokenCount":{},"candidatesTokenCount":{candidates}{}{},"totalTokenCount":{}}}"#,
        used.input(),
        optional("cachedContentTokenCount", used.cache_read),
        optional("thoughtsTokenCount", used.reasoning_output),
        used.total(),
    )
}

pub fn text_part(text: &str) -> String {
    format!(r#"{{"text":{}}}"#, quoted(text))
}

pub fn thought_part(text: &str) -> String {
    format!(r#"{{"text":{},"thought":true}}"#, quoted(text))
}

pub fn call_part(call: &RenderedToolCall) -> String {
    format!(
        r#"{{"functionCall":{{"id":{},"name":{},"args":{}}}}}"#,
        quoted(&call.id),
        quoted(&call.name),
        call.object()
    )
}

/// The id and the model in a response.
#[derive(Default)]
pub struct ModelOrigin {
    pub id: String,
    pub model: String,
}

impl ModelOrigin {
    /// A response with these parts; `finish` and `usage` only in the last one.
    pub fn response(&self, parts: &str, finish: Option<&str>, usage: Option<String>) -> String {
        let finish = finish.map(|reason| format!(r#","finishReason":"{reason}""#)).unwrap_or_default();
        let usage = usage.map(|usage| format!(r#","usageMetadata":{usage}"#)).unwrap_or_default();
        format!(
            r#"{{"candidates":[{{"content":{{"parts":[{parts}],"role":"model"}}{finish},"index":0}}]{usage},"modelVersion":{},"responseId":{}}}"#,
            quoted(&self.model),
            quoted(&self.id),
        )
    }
}
