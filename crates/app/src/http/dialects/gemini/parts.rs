//! Finds the media of a Gemini request, and input that the model reads from elsewhere.

use serde_json::Value;

use crate::http::dialects::sizing::media::FoundMedia;
use crate::http::dialects::sizing::{items, refers, says, text};

/// How often a tool of the provider may be called, which a request cannot say here.
const TOOL_CALLS: u64 = 5;
/// Fields of a part whose content is in the request.
const IN_THE_PART: [&str; 13] = [
    "text",
    "thought",
    "thoughtSignature",
    "thought_signature",
    "functionCall",
    "function_call",
    "functionResponse",
    "function_response",
    "executableCode",
    "executable_code",
    "codeExecutionResult",
    "code_execution_result",
    "videoMetadata",
];
const FUNCTIONS: [&str; 2] = ["functionDeclarations", "function_declarations"];

pub fn find<'a>(body: &'a Value, found: &mut FoundMedia<'a>) {
    // The SDK counts the contents alone, or the whole request that it would make.
    for body in [Some(body), body.get("generateContentRequest")].into_iter().flatten() {
        for name in ["systemInstruction", "system_instruction", "content"] {
            if let Some(content) = body.get(name) {
                read_content(content, found);
            }
        }
        for content in items(body, "contents") {
            read_content(content, found);
        }
        for request in items(body, "requests") {
            if let Some(content) = request.get("content") {
                read_content(content, found);
            }
        }
        for tool in items(body, "tools") {
            found.size.has_tools = true;
            read_tool(tool, found);
        }
        if says(body, "cachedContent") || says(body, "cached_content") {
            found.unseen();
        }
        let config = either(body, "generationConfig", "generation_config").unwrap_or(&Value::Null);
        let modalities = either(config, "responseModalities", "response_modalities").and_then(Value::as_array);
        let asks = modalities.is_some_and(|list| list.iter().any(|word| word == "AUDIO"));
        found.size.answers_in_sound |= asks;
    }
}

fn either<'a>(value: &'a Value, name: &str, other: &str) -> Option<&'a Value> {
    value.get(name).filter(|value| !value.is_null()).or_else(|| value.get(other)).filter(|value| !value.is_null())
}

fn read_content<'a>(content: &'a Value, found: &mut FoundMedia<'a>) {
    for part in items(content, "parts") {
        read_part(part, found);
    }
}

fn read_part<'a>(part: &'a Value, found: &mut FoundMedia<'a>) {
    for name in ["thoughtSignature", "thought_signature"] {
        if let Some(signature) = text(part, name) {
            found.opaque(signature);
        }
    }
    if let Some(inline) = either(part, "inlineData", "inline_data") {
        let media_type = text(inline, "mimeType").or_else(|| text(inline, "mime_type")).unwrap_or_default();
        let data = text(inline, "data").unwrap_or_default();
        found.inline(media_type, data);
    }
    if let Some(answer) = either(part, "functionResponse", "function_response") {
        read_content(answer, found);
    }
    let stands_whole =
        says(part, "inlineData") || says(part, "inline_data") || IN_THE_PART.iter().any(|name| says(part, name));
    if says(part, "fileData") || says(part, "file_data") || (!stands_whole && refers(part)) {
        found.unseen_document();
    }
}

/// Every tool that is not a function of the caller runs at the provider, and adds input that we cannot see.
fn read_tool(tool: &Value, found: &mut FoundMedia<'_>) {
    let offered = tool.as_object().into_iter().flatten();
    for (name, _) in offered.filter(|(name, value)| !FUNCTIONS.contains(&name.as_str()) && !value.is_null()) {
        found.unseen();
        let calls = &mut found.size.tool_calls;
        match name.as_str() {
            "googleSearch" | "google_search" | "googleSearchRetrieval" | "google_search_retrieval" => {
                calls.web_search = calls.web_search.max(TOOL_CALLS);
            }
            "urlContext" | "url_context" => calls.web_fetch = TOOL_CALLS,
            "codeExecution" | "code_execution" => calls.code_execution = TOOL_CALLS,
            _ => {}
        }
    }
}
