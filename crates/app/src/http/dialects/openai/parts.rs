//! Finds the media of a chat completion request, and input that the model reads from elsewhere.

use serde_json::Value;

use crate::http::dialects::request_summary::answers;
use crate::http::dialects::sizing::media::FoundMedia;
use crate::http::dialects::sizing::{items, refers, says, text};

/// A search model searches once an answer.
const SEARCHES: u64 = 1;
/// How often a tool of the provider may be called, which a request cannot say here.
const TOOL_CALLS: u64 = 5;
/// Fields that refer to content outside the request.
const ELSEWHERE: [&str; 4] = ["previous_response_id", "conversation", "prompt", "container"];

pub fn find<'a>(body: &'a Value, found: &mut FoundMedia<'a>) {
    for message in items(body, "messages") {
        for part in items(message, "content") {
            read_part(part, found);
        }
        // Earlier audio of the model is referred to by its id.
        if message.get("audio").is_some_and(|audio| says(audio, "id")) {
            found.unseen();
        }
    }
    for tool in items(body, "tools") {
        found.size.has_tools = true;
        read_tool(tool, found);
    }
    if says(body, "web_search_options") {
        let answers = answers(body.get("n"));
        found.unseen();
        let searches = SEARCHES.saturating_mul(answers);
        found.size.tool_calls.web_search = found.size.tool_calls.web_search.saturating_add(searches);
    }
    if ELSEWHERE.iter().any(|name| says(body, name)) {
        found.unseen();
    }
    let modalities = body.get("modalities").and_then(Value::as_array);
    found.size.answers_in_sound = modalities.is_some_and(|list| list.iter().any(|word| word == "audio"));
}

fn read_part<'a>(part: &'a Value, found: &mut FoundMedia<'a>) {
    match text(part, "type").unwrap_or_default() {
        "image_url" | "input_image" => {
            let url = part.pointer("/image_url/url").or_else(|| part.get("image_url")).and_then(Value::as_str);
            match url {
                Some(url) => found.picture_url(url),
                None => found.picture_unseen(),
            }
        }
        "input_audio" => match part.pointer("/input_audio/data").and_then(Value::as_str) {
            Some(data) => found.sound(data),
            None => found.unseen(),
        },
        "file" | "input_file" => {
            let file = part.get("file").unwrap_or(part);
            match text(file, "file_data") {
                Some(data) => found.file_data(data),
                None => found.unseen_document(),
            }
        }
        "text" | "input_text" | "output_text" | "refusal" => {}
        _ if refers(part) => found.unseen(),
        _ => {}
    }
}

fn read_tool(tool: &Value, found: &mut FoundMedia<'_>) {
    let kind = text(tool, "type").unwrap_or("function");
    if matches!(kind, "function" | "custom") {
        return;
    }
    found.unseen();
    let calls = &mut found.size.tool_calls;
    if kind.starts_with("web_search") {
        calls.web_search = calls.web_search.saturating_add(TOOL_CALLS);
    } else if kind.starts_with("code_interpreter") {
        calls.code_execution = calls.code_execution.saturating_add(TOOL_CALLS);
    }
}
