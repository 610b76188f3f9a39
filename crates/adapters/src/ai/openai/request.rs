//! Writes a conversation as a chat completion request.

use domain::ai::{Conversation, ConversationTurn, MessagePart, Speaker, ToolChoice, ToolDefinition};
use ports::ai::{ProviderCall, ProviderFault};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::ai::dialect;

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<FunctionTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Option<Content<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<FunctionCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(&'a str),
    Parts(Vec<TextPart<'a>>),
}

#[derive(Serialize)]
struct TextPart<'a> {
    r#type: &'static str,
    text: &'a str,
}

#[derive(Serialize)]
struct FunctionCall<'a> {
    id: &'a str,
    r#type: &'static str,
    function: CalledFunction<'a>,
}

#[derive(Serialize)]
struct CalledFunction<'a> {
    name: &'a str,
    /// JSON as text.
    arguments: &'a str,
}

#[derive(Serialize)]
struct FunctionTool<'a> {
    r#type: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Choice<'a> {
    Word(&'static str),
    Function { r#type: &'static str, function: Named<'a> },
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
}

/// The result of a failed tool is sent as a plain result: the format has no field for the failure.
pub(super) fn written(conversation: &Conversation, call: &ProviderCall) -> Result<String, ProviderFault> {
    let system = conversation.system.as_deref();
    let system = system.map(|text| Message { content: Some(Content::Text(text)), ..Message::of("system") });
    let has_tools = !conversation.tools.is_empty();
    let missing = call.provider.missing;
    let bound = call.max_output_tokens.or(conversation.max_output_tokens);
    dialect::written(&Request {
        model: call.model.as_str(),
        messages: system.into_iter().chain(conversation.turns.iter().flat_map(messages)).collect(),
        tools: conversation.tools.iter().map(tool).collect::<Result<_, _>>()?,
        tool_choice: choice(&conversation.tool_choice).filter(|_| has_tools),
        parallel_tool_calls: conversation.parallel_tools.filter(|_| has_tools && !missing.parallel_tool_calls),
        max_completion_tokens: bound.filter(|_| !missing.max_completion_tokens),
        max_tokens: bound.filter(|_| missing.max_completion_tokens),
        temperature: conversation.temperature,
        top_p: conversation.top_p,
        stop: &conversation.stop,
        stream: call.streamed.then_some(true),
        stream_options: (call.streamed && !missing.stream_options).then_some(StreamOptions { include_usage: true }),
    })
}

impl Message<'_> {
    const fn of(role: &'static str) -> Self {
        Self { role, content: None, tool_calls: Vec::new(), tool_call_id: None }
    }
}

/// The messages of a turn: each tool result is a message of its own, directly after the call.
fn messages(turn: &ConversationTurn) -> Vec<Message<'_>> {
    let answers = turn.parts.iter().filter_map(|part| match part {
        MessagePart::ToolAnswer(answer) => Some(Message {
            content: Some(Content::Text(&answer.content)),
            tool_call_id: Some(&answer.id),
            ..Message::of("tool")
        }),
        MessagePart::Text(_) | MessagePart::ToolCall(_) => None,
    });
    let mut messages: Vec<Message<'_>> = answers.collect();
    let tool_calls: Vec<FunctionCall<'_>> = turn.parts.iter().filter_map(function_call).collect();
    let content = content(turn);
    let role = if turn.speaker == Speaker::User { "user" } else { "assistant" };
    if content.is_some() || !tool_calls.is_empty() {
        messages.push(Message { content, tool_calls, ..Message::of(role) });
    }
    messages
}

fn content(turn: &ConversationTurn) -> Option<Content<'_>> {
    let texts = turn
        .parts
        .iter()
        .filter_map(|part| if let MessagePart::Text(text) = part { Some(text.as_str()) } else { None });
    let texts: Vec<&str> = texts.collect();
    match texts.as_slice() {
        [] => None,
        [text] => Some(Content::Text(text)),
        several => Some(Content::Parts(several.iter().map(|text| TextPart { r#type: "text", text }).collect())),
    }
}

fn function_call(part: &MessagePart) -> Option<FunctionCall<'_>> {
    let MessagePart::ToolCall(call) = part else { return None };
    let arguments = if call.arguments.is_empty() { "{}" } else { &call.arguments };
    Some(FunctionCall { id: &call.id, r#type: "function", function: CalledFunction { name: &call.name, arguments } })
}

fn tool(tool: &ToolDefinition) -> Result<FunctionTool<'_>, ProviderFault> {
    let parameters = tool.parameters.as_deref();
    let parameters = parameters.map(|text| dialect::json(text, "the schema of a tool")).transpose()?;
    let function = Function { name: &tool.name, description: tool.description.as_deref(), parameters };
    Ok(FunctionTool { r#type: "function", function })
}

fn choice(choice: &ToolChoice) -> Option<Choice<'_>> {
    match choice {
        ToolChoice::Auto => None,
        ToolChoice::Never => Some(Choice::Word("none")),
        ToolChoice::Required => Some(Choice::Word("required")),
        ToolChoice::Named(name) => Some(Choice::Function { r#type: "function", function: Named { name } }),
    }
}
