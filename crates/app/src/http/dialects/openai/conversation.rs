//! Translates a chat completion request into a conversation, for a model of another provider.
//!
//! Fields that do not change the conversation are dropped: `user`, `metadata`, `safety_identifier`, `prompt_cache_key`,
//! `prompt_cache_retention`, `seed`, `stream_options`, `service_tier`; `name` of a message, `strict` of a tool. Fields
//! that have their default value (`store: false`, `n: 1`, penalties of 0) are ignored. Every other field is refused.

use domain::ai::{Conversation, MessagePart, ProviderId, Speaker, ToolCall, ToolChoice, ToolDefinition};

use crate::http::dialects::reading::{GrowingConversation, JsonField, JsonObject, foreign};
use crate::http::problem::Problem;

const KNOWN: [&str; 29] = [
    "model",
    "messages",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "stop",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "user",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "seed",
    "service_tier",
    "store",
    "n",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "response_format",
    "modalities",
    "function_call",
];
/// Fields with the values that mean the same as no field.
const PLAIN: [(&str, &[&str]); 9] = [
    ("store", &["false"]),
    ("n", &["1"]),
    ("presence_penalty", &["0", "0.0"]),
    ("frequency_penalty", &["0", "0.0"]),
    ("logit_bias", &["{}"]),
    ("logprobs", &["false"]),
    ("top_logprobs", &["0"]),
    ("modalities", &["[\"text\"]"]),
    ("function_call", &["\"none\""]),
];

pub fn translate(text: &str, provider: ProviderId) -> Result<Conversation, Problem> {
    let body = JsonObject::body(text)?;
    body.hold_to(&KNOWN, provider)?;
    for (name, plain) in PLAIN {
        body.hold_plain(name, plain, provider)?;
    }
    if let Some(format) = body.get("response_format")
        && format.object()?.text("type")?.as_deref() != Some("text")
    {
        return Err(foreign(format.path, provider));
    }
    let mut growing = GrowingConversation::default();
    for message in body.list("messages")? {
        add_message(&mut growing, &message.object()?, provider)?;
    }
    let tools = body.list("tools")?;
    let tools = tools.iter().map(|tool| read_tool(tool, provider));
    let most = body.either("max_completion_tokens", "max_tokens");
    Ok(Conversation {
        tools: tools.collect::<Result<_, _>>()?,
        tool_choice: tool_choice(&body)?,
        parallel_tools: body.flag("parallel_tool_calls")?,
        max_output_tokens: most.map(|most| most.parse("is a whole number")).transpose()?,
        temperature: body.number("temperature")?,
        top_p: body.number("top_p")?,
        stop: stop(&body)?,
        ..growing.into_conversation("messages")?
    })
}

fn add_message(
    growing: &mut GrowingConversation,
    message: &JsonObject<'_>,
    provider: ProviderId,
) -> Result<(), Problem> {
    let content = || message.get("content").map(|content| texts(&content, provider)).transpose();
    match message.text("role")?.as_deref() {
        Some("system" | "developer") => growing.system.extend(content()?),
        Some("user") => growing.add_text(Speaker::User, content()?.unwrap_or_default()),
        Some("assistant") => {
            let known =
                ["role", "content", "refusal", "tool_calls", "name", "annotations", "reasoning_content", "audio"];
            message.hold_to(&known, provider)?;
            message.hold_plain("audio", &[], provider)?;
            growing.add_text(Speaker::Assistant, content()?.or(message.text("refusal")?).unwrap_or_default());
            for call in message.list("tool_calls")? {
                let part = MessagePart::ToolCall(read_call(&call)?);
                growing.add(Speaker::Assistant, part);
            }
        }
        Some("tool") => {
            let id = message.needed("tool_call_id")?;
            let answered = growing.answer(&id.text()?, content()?.unwrap_or_default(), false);
            answered.map_err(|why| id.refused(why))?;
        }
        // `function`, which is older than `tool`.
        _ => return Err(message.needed("role")?.refused("cannot be translated; answer a tool with the role `tool`")),
    }
    Ok(())
}

fn read_call(call: &JsonField<'_>) -> Result<ToolCall, Problem> {
    let call = call.object()?;
    let id = call.needed("id")?.text()?;
    let function = call.needed("function")?.object()?;
    let name = function.needed("name")?.text()?;
    let arguments = function.text("arguments")?.filter(|arguments| !arguments.trim().is_empty());
    let arguments = arguments.unwrap_or_else(|| "{}".to_owned());
    if JsonObject::body(&arguments).is_err() {
        return Err(function.needed("arguments")?.refused("is the text of a JSON object"));
    }
    Ok(ToolCall { id, name, arguments })
}

/// Text, or parts that are text.
fn texts(content: &JsonField<'_>, provider: ProviderId) -> Result<String, Problem> {
    if content.is_text() {
        return content.text();
    }
    let mut all = String::new();
    for part in content.list()? {
        let part = part.object()?;
        let kind = part.needed("type")?;
        match kind.text()?.as_str() {
            "text" => all.push_str(&part.needed("text")?.text()?),
            "refusal" => all.push_str(&part.needed("refusal")?.text()?),
            other => return Err(foreign(part.path_of(other), provider)),
        }
    }
    Ok(all)
}

fn read_tool(tool: &JsonField<'_>, provider: ProviderId) -> Result<ToolDefinition, Problem> {
    let tool = tool.object()?;
    let kind = tool.needed("type")?;
    if kind.text()? != "function" {
        return Err(foreign(kind.path, provider));
    }
    let function = tool.needed("function")?.object()?;
    let parameters = function.get("parameters").map(|schema| schema.json_object()).transpose()?;
    Ok(ToolDefinition {
        name: function.needed("name")?.text()?,
        description: function.text("description")?,
        parameters,
    })
}

fn tool_choice(body: &JsonObject<'_>) -> Result<ToolChoice, Problem> {
    let Some(choice) = body.get("tool_choice") else { return Ok(ToolChoice::Auto) };
    if !choice.is_text() {
        let function = choice.object()?.needed("function")?.object()?;
        return Ok(ToolChoice::Named(function.needed("name")?.text()?));
    }
    match choice.text()?.as_str() {
        "auto" => Ok(ToolChoice::Auto),
        "none" => Ok(ToolChoice::Never),
        "required" => Ok(ToolChoice::Required),
        _ => Err(choice.refused("is auto, none, required, or names a function")),
    }
}

fn stop(body: &JsonObject<'_>) -> Result<Vec<String>, Problem> {
    match body.get("stop") {
        None => Ok(Vec::new()),
        Some(stop) if stop.is_text() => Ok(vec![stop.text()?]),
        Some(stop) => stop.parse("is text, or a list of texts"),
    }
}
