//! A conversation as our own route accepts it, and as one provider's dialect is translated into another's: text, tool
//! calls and tool results. A call that uses features of a single provider is passed to that provider unchanged.
//!
//! JSON that the gateway does not inspect (a tool's schema, its arguments) stays text.

use serde::{Deserialize, Serialize};

/// The author of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speaker {
    User,
    Assistant,
}

/// A tool call that the model requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    /// A JSON object.
    pub arguments: String,
}

/// The result of a tool call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolAnswer {
    /// The id of the tool call.
    pub id: String,
    /// The name of the tool: Gemini matches results by it.
    pub name: String,
    pub content: String,
    pub is_error: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessagePart {
    Text(String),
    /// In a turn of the assistant.
    ToolCall(ToolCall),
    /// In a turn of the user.
    ToolAnswer(ToolAnswer),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversationTurn {
    pub speaker: Speaker,
    pub parts: Vec<MessagePart>,
}

impl ConversationTurn {
    pub fn text(speaker: Speaker, text: impl Into<String>) -> Self {
        Self { speaker, parts: vec![MessagePart::Text(text.into())] }
    }
}

/// A tool that the model may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolDefinition {
    pub name: String,
    pub description: Option<String>,
    /// A JSON Schema of its arguments.
    pub parameters: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    Never,
    /// The model must call a tool, any one.
    Required,
    Named(String),
}

/// The whole request to a model, in terms that all providers share.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    pub system: Option<String>,
    pub turns: Vec<ConversationTurn>,
    pub tools: Vec<ToolDefinition>,
    pub tool_choice: ToolChoice,
    /// Whether the model may call several tools at once; `None` is the provider's default.
    pub parallel_tools: Option<bool>,
    /// The upper bound of output tokens, reasoning included.
    pub max_output_tokens: Option<u64>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub stop: Vec<String>,
}

impl Conversation {
    /// All input text, piece by piece, for counting before the call.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let parts = self.turns.iter().flat_map(|turn| &turn.parts).flat_map(|part| match part {
            MessagePart::Text(text) => [text.as_str(), ""],
            MessagePart::ToolCall(call) => [call.name.as_str(), call.arguments.as_str()],
            MessagePart::ToolAnswer(answer) => [answer.name.as_str(), answer.content.as_str()],
        });
        let tools = self.tools.iter().flat_map(|tool| {
            [tool.name.as_str(), tool.description.as_deref().unwrap_or(""), tool.parameters.as_deref().unwrap_or("")]
        });
        self.system.as_deref().into_iter().chain(parts).chain(tools)
    }
}

/// Why a model stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    Stop,
    /// The output limit or the reserved amount was reached.
    Length,
    ToolCalls,
    /// The provider withheld the rest.
    Filtered,
}

impl FinishReason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::Filtered => "filtered",
        }
    }
}

/// A piece of a model's output, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerDelta {
    Text(String),
    /// Reasoning that the caller can see; it is output like text.
    Thinking(String),
    /// The tool calls of an answer are numbered from 0.
    ToolCallBegun {
        index: u32,
        id: String,
        name: String,
    },
    /// A further piece of a call's arguments; the pieces together are one JSON object.
    ToolArguments {
        index: u32,
        json: String,
    },
    Finished(FinishReason),
}

impl AnswerDelta {
    /// The text of it that is billed as output.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Thinking(text) => text,
            Self::ToolCallBegun { name, .. } => name,
            Self::ToolArguments { json, .. } => json,
            Self::Finished(_) => "",
        }
    }
}
