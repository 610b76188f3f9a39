//! Finds the media of a message request, and input that the model reads from elsewhere.

use serde_json::Value;

use crate::http::dialects::request_summary::{bound, present};
use crate::http::dialects::sizing::media::FoundMedia;
use crate::http::dialects::sizing::{items, refers, says, text};

/// How often a tool of the provider may be called if the request does not say.
const TOOL_CALLS: u64 = 5;
/// How often it may be called if what the request says is not understood.
const TOOL_CALLS_MAX: u64 = 1_000;
/// Tools of Anthropic that run at the caller.
const AT_THE_CALLERS: [&str; 4] = ["bash_", "text_editor_", "computer_", "memory_"];

pub fn find<'a>(body: &'a Value, found: &mut FoundMedia<'a>) {
    for block in items(body, "system") {
        read_block(block, found);
    }
    for message in items(body, "messages") {
        for block in items(message, "content") {
            read_block(block, found);
        }
    }
    for tool in items(body, "tools") {
        found.size.has_tools = true;
        read_tool(tool, found);
    }
    let budget = bound(body.pointer("/thinking/budget_tokens"));
    found.size.thinking_budget = budget.unwrap_or_default();
    if items(body, "mcp_servers").next().is_some() || says(body, "container") {
        found.unseen();
    }
}

fn read_block<'a>(block: &'a Value, found: &mut FoundMedia<'a>) {
    let kind = text(block, "type").unwrap_or_default();
    match kind {
        "image" => return read_image(block, found),
        "document" => read_document(block, found),
        "thinking" => found.opaque(text(block, "signature").unwrap_or_default()),
        "redacted_thinking" => found.opaque(text(block, "data").unwrap_or_default()),
        "web_search_result" => found.opaque(text(block, "encrypted_content").unwrap_or_default()),
        "text" | "tool_use" | "server_tool_use" | "mcp_tool_use" | "search_result" | "tool_reference" => {}
        _ if kind.ends_with("tool_result") => {}
        _ if refers(block) => found.unseen(),
        _ => {}
    }
    // Tool results and documents have blocks of their own, in a list or alone.
    let inner = if kind == "document" { block.get("source").unwrap_or(block) } else { block };
    for nested in items(inner, "content") {
        read_block(nested, found);
    }
}

fn read_image<'a>(block: &'a Value, found: &mut FoundMedia<'a>) {
    let source = block.get("source").unwrap_or(&Value::Null);
    let data = text(source, "data");
    match (text(source, "type"), data) {
        (Some("base64"), Some(data)) => found.inline("image/", data),
        _ => found.picture_unseen(),
    }
}

fn read_document<'a>(block: &'a Value, found: &mut FoundMedia<'a>) {
    let source = block.get("source").unwrap_or(&Value::Null);
    match (text(source, "type"), text(source, "data")) {
        (Some("text" | "content"), _) => {}
        (Some("base64"), Some(data)) => found.inline("application/pdf", data),
        _ => found.unseen_document(),
    }
}

/// A tool that does not surely run at the caller runs at the provider, and adds input that we cannot see.
fn read_tool(tool: &Value, found: &mut FoundMedia<'_>) {
    let kind = text(tool, "type").unwrap_or("custom");
    if kind == "custom" || AT_THE_CALLERS.iter().any(|prefix| kind.starts_with(prefix)) {
        return;
    }
    found.unseen();
    let uses = present(tool, "max_uses").map_or(TOOL_CALLS, |uses| bound(Some(uses)).unwrap_or(TOOL_CALLS_MAX));
    let calls = &mut found.size.tool_calls;
    let place = match kind {
        _ if kind.starts_with("web_search") => &mut calls.web_search,
        _ if kind.starts_with("web_fetch") => &mut calls.web_fetch,
        _ if kind.starts_with("code_execution") => &mut calls.code_execution,
        _ => return,
    };
    *place = place.saturating_add(uses);
}
