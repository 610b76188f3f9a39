//! Translates a message request into a conversation, for a model of another provider.
//!
//! Fields that do not change the conversation are dropped: `metadata`, `service_tier`, `cache_control` at any place,
//! thinking of earlier turns with its signatures, citations. `thinking` is ignored if it is disabled. Every other field
//! is refused.

use domain::ai::{Conversation, MessagePart, ProviderId, Speaker, ToolCall, ToolChoice, ToolDefinition};

use crate::http::dialects::reading::{GrowingConversation, JsonField, JsonObject, foreign};
use crate::http::problem::Problem;

const KNOWN: [&str; 14] = [
    "model",
    "messages",
    "system",
    "stream",
    "max_tokens",
    "temperature",
    "top_p",
    "stop_sequences",
    "tools",
    "tool_choice",
    "metadata",
    "service_tier",
    "cache_control",
    "thinking",
];

pub fn translate(text: &str, provider: ProviderId) -> Result<Conversation, Problem> {
    let body = JsonObject::body(text)?;
    body.hold_to(&KNOWN, provider)?;
    if let Some(thinking) = body.get("thinking")
        && thinking.object()?.text("type")?.as_deref() != Some("disabled")
    {
        return Err(foreign(thinking.path, provider));
    }
    let mut growing = GrowingConversation::default();
    if let Some(system) = body.get("system") {
        growing.system.push(texts(&system, provider)?);
    }
    for message in body.list("messages")? {
        add_message(&mut growing, &message.object()?, provider)?;
    }
    let mut tools = Vec::new();
    for tool in body.list("tools")? {
        tools.push(read_tool(&tool, provider)?);
    }
    let (tool_choice, parallel_tools) = tool_choice(&body)?;
    Ok(Conversation {
        tools,
        tool_choice,
        parallel_tools,
        max_output_tokens: body.get("max_tokens").map(|most| most.parse("is a whole number")).transpose()?,
        temperature: body.number("temperature")?,
        top_p: body.number("top_p")?,
        stop: body.get("stop_sequences").map_or(Ok(Vec::new()), |stop| stop.parse("is a list of texts"))?,
        ..growing.into_conversation("messages")?
    })
}

fn add_message(
    growing: &mut GrowingConversation,
    message: &JsonObject<'_>,
    provider: ProviderId,
) -> Result<(), Problem> {
    let role = message.needed("role")?;
    let speaker = match role.text()?.as_str() {
        "assistant" => Speaker::Assistant,
        "user" => Speaker::User,
        // A system message between the turns.
        "system" => {
            growing.system.push(texts(&message.needed("content")?, provider)?);
            return Ok(());
        }
        _ => return Err(role.refused("is one of user, assistant, system")),
    };
    let content = message.needed("content")?;
    if content.is_text() {
        growing.add_text(speaker, content.text()?);
        return Ok(());
    }
    for block in content.list()? {
        add_block(growing, speaker, &block.object()?, provider)?;
    }
    Ok(())
}

fn add_block(
    growing: &mut GrowingConversation,
    speaker: Speaker,
    block: &JsonObject<'_>,
    provider: ProviderId,
) -> Result<(), Problem> {
    let kind = block.needed("type")?.text()?;
    match (kind.as_str(), speaker) {
        ("text", _) => growing.add_text(speaker, block.needed("text")?.text()?),
        ("tool_use", Speaker::Assistant) => {
            let call = ToolCall {
                id: block.needed("id")?.text()?,
                name: block.needed("name")?.text()?,
                arguments: block.needed("input")?.json_object()?,
            };
            growing.add(speaker, MessagePart::ToolCall(call));
        }
        ("tool_result", Speaker::User) => {
            let id = block.needed("tool_use_id")?;
            let content = block.get("content").map(|content| texts(&content, provider)).transpose()?;
            let is_error = block.flag("is_error")?.unwrap_or(false);
            let answered = growing.answer(&id.text()?, content.unwrap_or_default(), is_error);
            answered.map_err(|why| id.refused(why))?;
        }
        ("thinking" | "redacted_thinking", Speaker::Assistant) => {}
        (other, _) => return Err(foreign(block.path_of(other), provider)),
    }
    Ok(())
}

/// Text, or blocks of text.
fn texts(content: &JsonField<'_>, provider: ProviderId) -> Result<String, Problem> {
    if content.is_text() {
        return content.text();
    }
    let mut all = Vec::new();
    for block in content.list()? {
        let block = block.object()?;
        let kind = block.needed("type")?.text()?;
        match kind.as_str() {
            "text" => all.push(block.needed("text")?.text()?),
            other => return Err(foreign(block.path_of(other), provider)),
        }
    }
    Ok(all.join("\n\n"))
}

fn read_tool(tool: &JsonField<'_>, provider: ProviderId) -> Result<ToolDefinition, Problem> {
    let tool = tool.object()?;
    if let Some(kind) = tool.get("type")
        && kind.text()? != "custom"
    {
        return Err(foreign(kind.path, provider));
    }
    let parameters = tool.get("input_schema").map(|schema| schema.json_object()).transpose()?;
    Ok(ToolDefinition { name: tool.needed("name")?.text()?, description: tool.text("description")?, parameters })
}

fn tool_choice(body: &JsonObject<'_>) -> Result<(ToolChoice, Option<bool>), Problem> {
    let Some(choice) = body.get("tool_choice") else { return Ok((ToolChoice::Auto, None)) };
    let choice = choice.object()?;
    let kind = choice.needed("type")?;
    let parallel = choice.flag("disable_parallel_tool_use")?.map(|disabled| !disabled);
    let chosen = match kind.text()?.as_str() {
        "auto" => ToolChoice::Auto,
        "any" => ToolChoice::Required,
        "none" => ToolChoice::Never,
        "tool" => ToolChoice::Named(choice.needed("name")?.text()?),
        _ => return Err(kind.refused("is auto, any, none or tool")),
    };
    Ok((chosen, parallel))
}
