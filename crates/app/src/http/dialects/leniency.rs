//! Leniency: builds a conversation from a body in a dialect, for the sandbox, which replaces the dialect's provider.
//!
//! Promises: everything that the provider may accept is accepted. Text, tools and their results are read as far as they
//! are understood, and everything else is ignored: unknown fields, roles, kinds of blocks and of tools. Only a body
//! without messages is refused.

use domain::ai::{
    Conversation, ConversationTurn, Dialect, MessagePart, Speaker, ToolAnswer, ToolCall, ToolChoice, ToolDefinition,
};
use serde_json::Value;

use super::gemini::schemas::json_schema;
use super::request_summary::{bound, filled_list};
use crate::http::problem::Problem;

/// The conversation that this body asks for.
pub fn conversation(dialect: Dialect, body: &Value) -> Result<Conversation, Problem> {
    let mut heard = Heard::default();
    match dialect {
        Dialect::OpenAiChat => filled_list(body, "messages")?.iter().for_each(|message| heard.openai(message)),
        Dialect::Anthropic => {
            heard.system.extend(texts(body.get("system")));
            filled_list(body, "messages")?.iter().for_each(|message| heard.anthropic(message));
        }
        Dialect::Gemini => {
            let system = either(body, "systemInstruction", "system_instruction");
            heard.system.extend(system.into_iter().flat_map(|system| texts(system.get("parts").or(Some(system)))));
            filled_list(body, "contents")?.iter().for_each(|content| heard.gemini(content));
        }
    }
    let Heard { turns, system, .. } = heard;
    let config = either(body, "generationConfig", "generation_config").unwrap_or(&Value::Null);
    let bounds = ["max_completion_tokens", "max_tokens"].iter().filter_map(|name| body.get(*name));
    let bounds = bounds.chain(either(config, "maxOutputTokens", "max_output_tokens"));
    let (tool_choice, parallel_tools) = choice(dialect, body);
    Ok(Conversation {
        system: (!system.is_empty()).then(|| system.join("\n\n")),
        turns,
        tools: tools(dialect, body),
        tool_choice,
        parallel_tools,
        max_output_tokens: bounds.into_iter().find_map(|value| bound(Some(value))),
        ..Conversation::default()
    })
}

/// The conversation so far.
#[derive(Default)]
struct Heard {
    turns: Vec<ConversationTurn>,
    system: Vec<String>,
    /// Id and name of each call.
    calls: Vec<(String, String)>,
}

impl Heard {
    fn add(&mut self, speaker: Speaker, parts: Vec<MessagePart>) {
        self.turns.push(ConversationTurn { speaker, parts });
    }

    fn called(&mut self, id: Option<&str>, name: &str, arguments: String) -> MessagePart {
        let id = id.map_or_else(|| format!("call_{}", self.calls.len()), str::to_owned);
        self.calls.push((id.clone(), name.to_owned()));
        MessagePart::ToolCall(ToolCall { id, name: name.to_owned(), arguments })
    }

    fn answered(&self, id: &str, name: Option<&str>, content: String, is_error: bool) -> MessagePart {
        let known = self.calls.iter().find(|(known, _)| known == id).map(|(_, name)| name.as_str());
        let name = known.or(name).unwrap_or("unknown").to_owned();
        MessagePart::ToolAnswer(ToolAnswer { id: id.to_owned(), name, content, is_error })
    }

    fn openai(&mut self, message: &Value) {
        let said = texts(message.get("content"));
        let parts: Vec<MessagePart> = said.iter().cloned().map(MessagePart::Text).collect();
        match text(message, "role").unwrap_or_default() {
            "system" | "developer" => self.system.extend(said),
            "assistant" => {
                let mut parts = parts;
                let functions = list(message, "tool_calls").iter().map(|call| (text(call, "id"), function_of(call)));
                let old = message.get("function_call").map(|function| (None, function));
                for (id, function) in functions.chain(old).collect::<Vec<_>>() {
                    let arguments = text(function, "arguments").filter(|arguments| !arguments.trim().is_empty());
                    let arguments = arguments.unwrap_or("{}").to_owned();
                    parts.push(self.called(id, text(function, "name").unwrap_or_default(), arguments));
                }
                self.add(Speaker::Assistant, parts);
            }
            "tool" | "function" => {
                let id = text(message, "tool_call_id").unwrap_or_default();
                let answer = self.answered(id, text(message, "name"), said.concat(), false);
                self.add(Speaker::User, vec![answer]);
            }
            _ => self.add(Speaker::User, parts),
        }
    }

    fn anthropic(&mut self, message: &Value) {
        let speaker = match text(message, "role") {
            Some("system") => return self.system.extend(texts(message.get("content"))),
            Some("assistant") => Speaker::Assistant,
            _ => Speaker::User,
        };
        let Some(Value::Array(blocks)) = message.get("content") else {
            let said = texts(message.get("content"));
            return self.add(speaker, said.into_iter().map(MessagePart::Text).collect());
        };
        let mut parts = Vec::new();
        for block in blocks {
            match text(block, "type").unwrap_or("text") {
                "text" => parts.extend(texts(Some(block)).into_iter().map(MessagePart::Text)),
                "tool_use" => {
                    let arguments = block.get("input").map_or_else(|| "{}".to_owned(), Value::to_string);
                    parts.push(self.called(text(block, "id"), text(block, "name").unwrap_or_default(), arguments));
                }
                "tool_result" => {
                    let content = texts(block.get("content")).join("\n\n");
                    let is_error = block.get("is_error") == Some(&Value::Bool(true));
                    parts.push(self.answered(text(block, "tool_use_id").unwrap_or_default(), None, content, is_error));
                }
                _ => {}
            }
        }
        self.add(speaker, parts);
    }

    fn gemini(&mut self, content: &Value) {
        let speaker = if text(content, "role") == Some("model") { Speaker::Assistant } else { Speaker::User };
        let parts = match content.get("parts") {
            Some(Value::Array(parts)) => parts.as_slice(),
            Some(part) => std::slice::from_ref(part),
            None => std::slice::from_ref(content),
        };
        let mut heard = Vec::new();
        for part in parts.iter().filter(|part| part.get("thought") != Some(&Value::Bool(true))) {
            if let Some(call) = either(part, "functionCall", "function_call") {
                let arguments = call.get("args").map_or_else(|| "{}".to_owned(), Value::to_string);
                heard.push(self.called(text(call, "id"), text(call, "name").unwrap_or_default(), arguments));
            } else if let Some(answer) = either(part, "functionResponse", "function_response") {
                let response = answer.get("response").unwrap_or(&Value::Null);
                let is_error = response.get("error").is_some();
                let id = text(answer, "id").unwrap_or_default();
                heard.push(self.answered(id, text(answer, "name"), response.to_string(), is_error));
            } else {
                heard.extend(texts(Some(part)).into_iter().map(MessagePart::Text));
            }
        }
        self.add(speaker, heard);
    }
}

fn text<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.get(name).and_then(Value::as_str)
}

fn list<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    object.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn either<'a>(object: &'a Value, name: &str, other: &str) -> Option<&'a Value> {
    let said = |name| object.get(name).filter(|value| !value.is_null());
    said(name).or_else(|| said(other))
}

/// The function of a tool or of a call, which some clients send without a wrapper.
fn function_of(tool: &Value) -> &Value {
    tool.get("function").filter(|function| function.is_object()).unwrap_or(tool)
}

/// All texts of a content: a text, or a list of parts with text.
fn texts(content: Option<&Value>) -> Vec<String> {
    match content {
        Some(Value::String(text)) if !text.is_empty() => vec![text.clone()],
        Some(Value::Array(parts)) => parts.iter().flat_map(|part| texts(Some(part))).collect(),
        Some(part @ Value::Object(_)) => {
            let said = text(part, "text").or_else(|| text(part, "refusal"));
            said.filter(|text| !text.is_empty()).map(str::to_owned).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

fn tools(dialect: Dialect, body: &Value) -> Vec<ToolDefinition> {
    let listed = list(body, "tools").iter();
    let tool = |function: &Value, schema: &str| {
        let parameters = function.get(schema).filter(|schema| schema.is_object()).map(Value::to_string);
        let description = text(function, "description").map(str::to_owned);
        text(function, "name").map(|name| ToolDefinition { name: name.to_owned(), description, parameters })
    };
    match dialect {
        Dialect::OpenAiChat => {
            let functions = listed.map(function_of).chain(list(body, "functions"));
            functions.filter_map(|function| tool(function, "parameters")).collect()
        }
        // Other kinds run at the provider, which the sandbox does not call.
        Dialect::Anthropic => {
            let own = listed.filter(|tool| matches!(text(tool, "type"), None | Some("custom")));
            own.filter_map(|function| tool(function, "input_schema")).collect()
        }
        Dialect::Gemini => {
            let declared = listed.filter_map(|tool| either(tool, "functionDeclarations", "function_declarations"));
            let functions = declared.filter_map(Value::as_array).flatten();
            let with_schema = |function: &Value| {
                let json = either(function, "parametersJsonSchema", "parameters_json_schema").map(Value::to_string);
                let found = tool(function, "parameters")?;
                let parameters = json.or_else(|| found.parameters.as_deref().map(json_schema));
                Some(ToolDefinition { parameters, ..found })
            };
            functions.filter_map(with_schema).collect()
        }
    }
}

/// Which tool is to be called, and whether several may be.
fn choice(dialect: Dialect, body: &Value) -> (ToolChoice, Option<bool>) {
    let flag = |object: &Value, name: &str| object.get(name).and_then(Value::as_bool);
    let named = |name: Option<&str>| name.map_or(ToolChoice::Auto, |name| ToolChoice::Named(name.to_owned()));
    let asked = body.get("tool_choice").unwrap_or(&Value::Null);
    match dialect {
        Dialect::OpenAiChat => {
            let choice = match asked.as_str() {
                Some("none") => ToolChoice::Never,
                Some("required") => ToolChoice::Required,
                _ => named(text(function_of(asked), "name")),
            };
            (choice, flag(body, "parallel_tool_calls"))
        }
        Dialect::Anthropic => {
            let choice = match text(asked, "type") {
                Some("any") => ToolChoice::Required,
                Some("none") => ToolChoice::Never,
                Some("tool") => named(text(asked, "name")),
                _ => ToolChoice::Auto,
            };
            (choice, flag(asked, "disable_parallel_tool_use").map(|disabled| !disabled))
        }
        Dialect::Gemini => {
            let config = either(body, "toolConfig", "tool_config").unwrap_or(&Value::Null);
            let function_calling =
                either(config, "functionCallingConfig", "function_calling_config").unwrap_or(&Value::Null);
            let allowed =
                either(function_calling, "allowedFunctionNames", "allowed_function_names").and_then(Value::as_array);
            let choice = match (text(function_calling, "mode").unwrap_or_default().to_uppercase().as_str(), allowed) {
                ("NONE", _) => ToolChoice::Never,
                ("ANY", Some(only)) if !only.is_empty() => named(only.first().and_then(Value::as_str)),
                ("ANY", _) => ToolChoice::Required,
                _ => ToolChoice::Auto,
            };
            (choice, None)
        }
    }
}

#[cfg(test)]
mod tests;
