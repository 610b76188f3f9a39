//! Translates `contents` into a conversation, for a model of another provider.
//!
//! Fields that do not change the conversation are dropped: `safetySettings`, `labels`, `seed`, thoughts of earlier
//! turns and their signatures. Fields that have their default value (`candidateCount: 1`, plain text as the media type,
//! penalties of 0) are ignored. Every other field is refused.

use domain::ai::{Conversation, MessagePart, ProviderId, Speaker, ToolCall, ToolChoice, ToolDefinition};

use super::schemas::json_schema;
use crate::http::dialects::reading::{GrowingConversation, JsonField, JsonObject};
use crate::http::problem::Problem;

const KNOWN: [&str; 13] = [
    "model",
    "contents",
    "systemInstruction",
    "system_instruction",
    "generationConfig",
    "generation_config",
    "tools",
    "toolConfig",
    "tool_config",
    "safetySettings",
    "safety_settings",
    "labels",
    "serviceTier",
];
const KNOWN_CONFIG: [&str; 17] = [
    "maxOutputTokens",
    "max_output_tokens",
    "temperature",
    "topP",
    "top_p",
    "stopSequences",
    "stop_sequences",
    "candidateCount",
    "candidate_count",
    "responseMimeType",
    "response_mime_type",
    "responseModalities",
    "seed",
    "presencePenalty",
    "frequencyPenalty",
    "responseLogprobs",
    "thinkingConfig",
];
const PLAIN: [(&str, &[&str]); 9] = [
    ("candidateCount", &["1"]),
    ("candidate_count", &["1"]),
    ("responseMimeType", &["\"text/plain\""]),
    ("response_mime_type", &["\"text/plain\""]),
    ("responseModalities", &["[\"TEXT\"]"]),
    ("presencePenalty", &["0", "0.0"]),
    ("frequencyPenalty", &["0", "0.0"]),
    ("responseLogprobs", &["false"]),
    ("thinkingConfig", &["{}"]),
];

pub fn translate(text: &str, provider: ProviderId) -> Result<Conversation, Problem> {
    let body = JsonObject::body(text)?;
    body.hold_to(&KNOWN, provider)?;
    let mut growing = GrowingConversation::default();
    if let Some(system) = body.either("systemInstruction", "system_instruction") {
        growing.system.push(system_text(&system, provider)?);
    }
    for content in body.list("contents")? {
        add_content(&mut growing, &content.object()?, provider)?;
    }
    let mut tools = Vec::new();
    for tool in body.list("tools")? {
        read_tools(&mut tools, &tool, provider)?;
    }
    let conversation =
        Conversation { tools, tool_choice: tool_choice(&body)?, ..growing.into_conversation("contents")? };
    match body.either("generationConfig", "generation_config") {
        None => Ok(conversation),
        Some(config) => configured(conversation, &config.object()?, provider),
    }
}

fn configured(
    conversation: Conversation,
    config: &JsonObject<'_>,
    provider: ProviderId,
) -> Result<Conversation, Problem> {
    config.hold_to(&KNOWN_CONFIG, provider)?;
    for (name, plain) in PLAIN {
        config.hold_plain(name, plain, provider)?;
    }
    let most = config.either("maxOutputTokens", "max_output_tokens");
    let top_p = config.either("topP", "top_p");
    let stop = config.either("stopSequences", "stop_sequences");
    Ok(Conversation {
        max_output_tokens: most.map(|most| most.parse("is a whole number")).transpose()?,
        temperature: config.number("temperature")?,
        top_p: top_p.map(|top_p| top_p.parse("is a number")).transpose()?,
        stop: stop.map_or(Ok(Vec::new()), |stop| stop.parse("is a list of texts"))?,
        ..conversation
    })
}

fn system_text(system: &JsonField<'_>, provider: ProviderId) -> Result<String, Problem> {
    let mut all = Vec::new();
    for part in system.object()?.list("parts")? {
        let part = part.object()?;
        part.hold_to(&["text"], provider)?;
        all.extend(part.text("text")?);
    }
    Ok(all.join("\n\n"))
}

fn add_content(
    growing: &mut GrowingConversation,
    content: &JsonObject<'_>,
    provider: ProviderId,
) -> Result<(), Problem> {
    let role = content.get("role");
    let speaker = match role.as_ref().map(JsonField::text).transpose()?.as_deref() {
        Some("model") => Speaker::Assistant,
        None | Some("user" | "function" | "tool") => Speaker::User,
        Some(_) => {
            let why = "is one of user, model, function, tool";
            return Err(role.map_or_else(|| Problem::malformed(why), |role| role.refused(why)));
        }
    };
    for part in content.list("parts")? {
        let part = part.object()?;
        if part.flag("thought")? == Some(true) {
            continue;
        }
        let call = part.either("functionCall", "function_call");
        let response = part.either("functionResponse", "function_response");
        if let Some(text) = part.text("text")? {
            growing.add_text(speaker, text);
        } else if let Some(call) = call {
            let call = read_call(&call.object()?, growing.calls())?;
            growing.add(Speaker::Assistant, MessagePart::ToolCall(call));
        } else if let Some(response) = response {
            add_answer(growing, &response.object()?)?;
        } else {
            let known = ["thoughtSignature", "thought_signature", "thought"];
            part.hold_to(&known, provider)?;
        }
    }
    Ok(())
}

/// A call without an id gets one from its index.
fn read_call(call: &JsonObject<'_>, place: usize) -> Result<ToolCall, Problem> {
    let name = call.needed("name")?.text()?;
    let arguments = call.get("args").map(|arguments| arguments.json_object()).transpose()?;
    let id = call.text("id")?.unwrap_or_else(|| format!("call_{place}"));
    Ok(ToolCall { id, name, arguments: arguments.unwrap_or_else(|| "{}".to_owned()) })
}

/// An answer without an id answers the first unanswered call of its tool.
fn add_answer(growing: &mut GrowingConversation, answer: &JsonObject<'_>) -> Result<(), Problem> {
    let name = answer.needed("name")?;
    let response = answer.get("response");
    let is_error = match &response {
        Some(response) => response.object()?.get("error").is_some(),
        None => false,
    };
    let content = response.map_or_else(String::new, |response| response.raw().to_owned());
    let known = answer.text("id")?.or(growing.unanswered(&name.text()?)).unwrap_or_default();
    growing.answer(&known, content, is_error).map_err(|why| name.refused(why))
}

fn read_tools(tools: &mut Vec<ToolDefinition>, field: &JsonField<'_>, provider: ProviderId) -> Result<(), Problem> {
    let tool = field.object()?;
    tool.hold_to(&["functionDeclarations", "function_declarations"], provider)?;
    let Some(declared) = tool.either("functionDeclarations", "function_declarations") else { return Ok(()) };
    for function in declared.list()? {
        let function = function.object()?;
        let schema = function.get("parameters").map(|schema| schema.json_object()).transpose()?;
        let json = function.either("parametersJsonSchema", "parameters_json_schema");
        let json = json.map(|schema| schema.json_object()).transpose()?;
        let parameters = schema.map(|schema| json_schema(&schema)).or(json);
        let description = function.text("description")?;
        tools.push(ToolDefinition { name: function.needed("name")?.text()?, description, parameters });
    }
    Ok(())
}

fn tool_choice(body: &JsonObject<'_>) -> Result<ToolChoice, Problem> {
    let Some(config) = body.either("toolConfig", "tool_config") else { return Ok(ToolChoice::Auto) };
    let config = config.object()?;
    let Some(calling) = config.either("functionCallingConfig", "function_calling_config") else {
        return Ok(ToolChoice::Auto);
    };
    let calling = calling.object()?;
    let names = calling.either("allowedFunctionNames", "allowed_function_names");
    let mode = calling.text("mode")?.unwrap_or_default().to_uppercase();
    let allowed: Vec<String> = names.as_ref().map_or(Ok(Vec::new()), |names| names.parse("is a list of names"))?;
    match (mode.as_str(), allowed.as_slice()) {
        ("" | "MODE_UNSPECIFIED" | "AUTO", []) => Ok(ToolChoice::Auto),
        ("NONE", _) => Ok(ToolChoice::Never),
        ("ANY", []) => Ok(ToolChoice::Required),
        ("ANY", [one]) => Ok(ToolChoice::Named(one.clone())),
        (_, []) => Err(calling.needed("mode")?.refused("is AUTO, ANY or NONE")),
        _ => Err(names.map_or_else(
            || Problem::malformed("The choice of tools is not understood."),
            |names| names.refused("names one function, with the mode ANY"),
        )),
    }
}
