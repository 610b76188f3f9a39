//! Writes a conversation as Anthropic messages.

use domain::ai::{
    CLAUDE_OUTPUT_UNASKED, Conversation, ConversationTurn, MessagePart, Speaker, ToolChoice, ToolDefinition,
};
use ports::ai::{ProviderCall, ProviderFault};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::ai::dialect::{self, json};

/// Claude's temperature scale ends at 1, the other providers' at 2.
const TEMPERATURE_MAX: f64 = 1.0;

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    max_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<&'a str>,
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<ToolOffered<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop_sequences: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Vec<Block<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block<'a> {
    Text {
        text: &'a str,
    },
    ToolUse {
        id: &'a str,
        name: &'a str,
        input: &'a RawValue,
    },
    ToolResult {
        tool_use_id: &'a str,
        content: &'a str,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
    },
}

#[derive(Serialize)]
struct ToolOffered<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    input_schema: &'a RawValue,
}

#[derive(Serialize)]
struct Choice<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disable_parallel_tool_use: Option<bool>,
}

/// When both are given, `temperature` is sent and `top_p` is dropped: newer models refuse the two together.
pub(super) fn written(conversation: &Conversation, call: &ProviderCall) -> Result<String, ProviderFault> {
    let mut messages = Vec::new();
    for turn in &conversation.turns {
        let content = blocks(turn)?;
        // Claude refuses a message without content.
        if !content.is_empty() {
            messages.push(Message { role: role(turn.speaker), content });
        }
    }
    let bound = call.max_output_tokens.or(conversation.max_output_tokens);
    dialect::written(&Request {
        model: call.model.as_str(),
        max_tokens: bound.unwrap_or(CLAUDE_OUTPUT_UNASKED),
        system: conversation.system.as_deref().filter(|text| !text.is_empty()),
        messages,
        tools: conversation.tools.iter().map(tool).collect::<Result<_, _>>()?,
        tool_choice: choice(conversation),
        temperature: conversation.temperature.map(|temperature| temperature.min(TEMPERATURE_MAX)),
        top_p: conversation.top_p.filter(|_| conversation.temperature.is_none()),
        stop_sequences: &conversation.stop,
        stream: call.streamed.then_some(true),
    })
}

const fn role(speaker: Speaker) -> &'static str {
    match speaker {
        Speaker::User => "user",
        Speaker::Assistant => "assistant",
    }
}

/// Tool results come first: Claude wants them directly after the calls.
fn blocks(turn: &ConversationTurn) -> Result<Vec<Block<'_>>, ProviderFault> {
    let (mut answers, mut others) = (Vec::new(), Vec::new());
    for part in &turn.parts {
        match part {
            MessagePart::Text(text) if text.is_empty() => {}
            MessagePart::Text(text) => others.push(Block::Text { text }),
            MessagePart::ToolCall(call) => {
                let input = json(&call.arguments, "the arguments of a tool call")?;
                others.push(Block::ToolUse { id: &call.id, name: &call.name, input });
            }
            MessagePart::ToolAnswer(answer) => answers.push(Block::ToolResult {
                tool_use_id: &answer.id,
                content: &answer.content,
                is_error: answer.is_error,
            }),
        }
    }
    answers.append(&mut others);
    Ok(answers)
}

fn tool(tool: &ToolDefinition) -> Result<ToolOffered<'_>, ProviderFault> {
    let schema = tool.parameters.as_deref().unwrap_or(r#"{"type":"object"}"#);
    let input_schema = json(schema, "the schema of a tool")?;
    Ok(ToolOffered { name: &tool.name, description: tool.description.as_deref(), input_schema })
}

fn choice(conversation: &Conversation) -> Option<Choice<'_>> {
    if conversation.tools.is_empty() {
        return None;
    }
    let disable_parallel_tool_use = (conversation.parallel_tools == Some(false)).then_some(true);
    let choice = |r#type, name| Some(Choice { r#type, name, disable_parallel_tool_use });
    match &conversation.tool_choice {
        ToolChoice::Auto if disable_parallel_tool_use.is_none() => None,
        ToolChoice::Auto => choice("auto", None),
        ToolChoice::Never => Some(Choice { r#type: "none", name: None, disable_parallel_tool_use: None }),
        ToolChoice::Required => choice("any", None),
        ToolChoice::Named(name) => choice("tool", Some(name)),
    }
}
