//! A conversation as our own route takes it, and as one provider's dialect is translated into another's: text, tools and
//! what they answered. What only one provider knows has no place here; a call that has it goes to that provider as it is.
//!
//! JSON that nobody here looks into (a tool's schema, its arguments) stays text.

use serde::{Deserialize, Serialize};

/// Who speaks in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speaker {
    User,
    Assistant,
}

/// A tool that the model wants to be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    /// A JSON object.
    pub arguments: String,
}

/// What a tool answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolAnswer {
    /// The id of the call that it answers.
    pub id: String,
    /// The name of the tool: Gemini knows answers by it.
    pub name: String,
    pub content: String,
    pub is_error: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text(String),
    /// In a turn of the assistant.
    ToolCall(ToolCall),
    /// In a turn of the user.
    ToolAnswer(ToolAnswer),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    pub speaker: Speaker,
    pub parts: Vec<Part>,
}

impl Turn {
    pub fn text(speaker: Speaker, text: impl Into<String>) -> Self {
        Self { speaker, parts: vec![Part::Text(text.into())] }
    }
}

/// A tool that the model may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
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
    /// Some tool, whichever.
    Required,
    Named(String),
}

/// Everything that a model is asked, in words that all providers know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    pub system: Option<String>,
    pub turns: Vec<Turn>,
    pub tools: Vec<Tool>,
    pub tool_choice: ToolChoice,
    /// Whether the model may ask for several tools at once; as the provider likes where nobody says.
    pub parallel_tools: Option<bool>,
    /// The most that may come out, reasoning included.
    pub max_output_tokens: Option<u64>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub stop: Vec<String>,
}

impl Conversation {
    /// All text that goes in, piece by piece: what is counted before the call.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let parts = self.turns.iter().flat_map(|turn| &turn.parts).flat_map(|part| match part {
            Part::Text(text) => [text.as_str(), ""],
            Part::ToolCall(call) => [call.name.as_str(), call.arguments.as_str()],
            Part::ToolAnswer(answer) => [answer.name.as_str(), answer.content.as_str()],
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
    /// It reached the most that it was allowed, or what was held for it.
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

/// A piece of what a model says, in the order in which it says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delta {
    Text(String),
    /// Thinking that the caller is shown; it is output like text.
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

impl Delta {
    /// What of it is output that is paid for.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Thinking(text) => text,
            Self::ToolCallBegun { name, .. } => name,
            Self::ToolArguments { json, .. } => json,
            Self::Finished(_) => "",
        }
    }
}
