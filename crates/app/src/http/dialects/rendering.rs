//! Rendering: turns the pieces of an answer into the bytes of a dialect. A renderer is a state and a few functions
//! without I/O or waiting, so that a test can check every byte.

use domain::ai::{AnswerDelta, Dialect, FinishReason};
use ports::ai::ReplyPiece;
use services::ai::answers::{AnswerHead, CallReceipt};

use super::problems;
use super::request_summary::OutputForm;
use super::{anthropic, gemini, openai};
use crate::http::problem::Problem;

/// How an answer ends.
#[derive(Clone, Copy, Debug)]
pub enum AnswerEnd<'a> {
    /// As the provider ended it, with its usage and cost.
    Settled(&'a CallReceipt),
    /// The gateway ended it at what was reserved, which the dialect shows as `length`. Without a receipt the usage
    /// could not be stored yet.
    Cut(Option<&'a CallReceipt>),
    /// It broke off. Only a stream renders this; a response in one piece becomes the problem itself.
    Broken(&'a Problem),
}

impl<'a> AnswerEnd<'a> {
    pub const fn receipt(self) -> Option<&'a CallReceipt> {
        match self {
            Self::Settled(receipt) => Some(receipt),
            Self::Cut(receipt) => receipt,
            Self::Broken(_) => None,
        }
    }
}

/// Renders one answer. `begin` is called once, before the first piece, and `end` once, after the last.
pub trait AnswerRenderer: Send {
    fn content_type(&self, head: &AnswerHead) -> String;
    fn begin(&mut self, head: &AnswerHead) -> Vec<u8>;
    fn piece(&mut self, piece: &ReplyPiece) -> Vec<u8>;
    fn end(&mut self, end: AnswerEnd<'_>) -> Vec<u8>;

    /// Bytes without content that keep a silent stream alive. They may come before `begin` and between any two pieces.
    fn ping(&mut self) -> Vec<u8> {
        b": ping\n\n".to_vec()
    }
}

/// What its rendering depends on besides the answer.
#[derive(Clone, Debug)]
pub struct RenderedFrame {
    pub dialect: Dialect,
    /// Whether the provider has the same dialect, so that its bytes are passed on unchanged.
    pub is_native: bool,
    pub form: OutputForm,
    pub include_usage: bool,
    /// How many answers in one response were asked for.
    pub answers: u64,
    /// When the request arrived, in seconds since 1970.
    pub created: i64,
    /// The input tokens, as they were counted before the call.
    pub input_tokens: u64,
    pub request_id: String,
}

impl RenderedFrame {
    pub fn renderer(self) -> Box<dyn AnswerRenderer> {
        match (self.form, self.is_native, self.dialect) {
            (OutputForm::Whole, true, _) => Box::new(NativeWhole::default()),
            (OutputForm::Whole, false, Dialect::OpenAiChat) => Box::new(openai::whole::OpenAiWhole::new(self)),
            (OutputForm::Whole, false, Dialect::Anthropic) => {
                Box::new(anthropic::whole::AnthropicWhole::new(self.input_tokens))
            }
            (OutputForm::Whole, false, Dialect::Gemini) => Box::new(gemini::whole::GeminiWhole::default()),
            (OutputForm::Stream(_), true, Dialect::OpenAiChat) => Box::new(openai::native::OpenAiNative::new(self)),
            (OutputForm::Stream(_), true, Dialect::Anthropic) => {
                Box::new(anthropic::native::AnthropicNative::new(self))
            }
            (OutputForm::Stream(framing), true, Dialect::Gemini) => {
                Box::new(gemini::native::GeminiNative::new(self, framing))
            }
            (OutputForm::Stream(_), false, Dialect::OpenAiChat) => Box::new(openai::stream::OpenAiChunks::new(self)),
            (OutputForm::Stream(_), false, Dialect::Anthropic) => {
                Box::new(anthropic::stream::AnthropicEvents::new(self))
            }
            (OutputForm::Stream(framing), false, Dialect::Gemini) => {
                Box::new(gemini::stream::GeminiChunks::new(self, framing))
            }
        }
    }

    /// The body of the dialect's error, as it is in an event.
    pub fn error(&self, problem: &Problem) -> String {
        problems::body(self.dialect, problem, &self.request_id).to_string()
    }
}

/// A complete answer that is passed on unchanged, in all dialects.
#[derive(Default)]
struct NativeWhole {
    body: Vec<u8>,
}

impl AnswerRenderer for NativeWhole {
    fn content_type(&self, head: &AnswerHead) -> String {
        head.content_type.clone()
    }

    fn begin(&mut self, _: &AnswerHead) -> Vec<u8> {
        Vec::new()
    }

    fn piece(&mut self, piece: &ReplyPiece) -> Vec<u8> {
        self.body.extend_from_slice(&piece.frame);
        Vec::new()
    }

    fn end(&mut self, _: AnswerEnd<'_>) -> Vec<u8> {
        std::mem::take(&mut self.body)
    }
}

/// A tool call, put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedToolCall {
    index: u32,
    pub id: String,
    pub name: String,
    arguments: String,
}

impl RenderedToolCall {
    /// The arguments as a JSON object; arguments that were cut off become an empty one.
    pub fn object(&self) -> &str {
        let is_object = self.arguments.trim_start().starts_with('{')
            && serde_json::from_str::<serde::de::IgnoredAny>(&self.arguments).is_ok();
        if is_object { &self.arguments } else { "{}" }
    }

    /// The arguments as they arrived.
    pub fn arguments(&self) -> &str {
        &self.arguments
    }
}

/// The whole answer, put together.
#[derive(Default)]
pub struct Transcript {
    pub text: String,
    pub thinking: String,
    pub calls: Vec<RenderedToolCall>,
    finish: Option<FinishReason>,
}

impl Transcript {
    pub fn take(&mut self, deltas: &[AnswerDelta]) {
        for delta in deltas {
            match delta {
                AnswerDelta::Text(text) => self.text.push_str(text),
                AnswerDelta::Thinking(text) => self.thinking.push_str(text),
                other => self.take_call(other),
            }
        }
    }

    /// Takes calls and the finish reason only; text is sent at once if it is streamed.
    pub fn take_call(&mut self, delta: &AnswerDelta) {
        match delta {
            AnswerDelta::Text(_) | AnswerDelta::Thinking(_) => {}
            AnswerDelta::ToolCallBegun { index, id, name } => {
                let call =
                    RenderedToolCall { index: *index, id: id.clone(), name: name.clone(), arguments: String::new() };
                self.calls.push(call);
            }
            AnswerDelta::ToolArguments { index, json } => {
                if let Some(call) = self.calls.iter_mut().find(|call| call.index == *index) {
                    call.arguments.push_str(json);
                }
            }
            AnswerDelta::Finished(reason) => self.finish = Some(*reason),
        }
    }

    /// Why it ended. A provider that gave no reason stopped, or waits for its tools.
    pub fn finish(&self, end: AnswerEnd<'_>) -> FinishReason {
        let told = match end {
            AnswerEnd::Cut(_) => Some(FinishReason::Length),
            AnswerEnd::Settled(receipt) => self.finish.or(receipt.finish),
            AnswerEnd::Broken(_) => self.finish,
        };
        told.unwrap_or(if self.calls.is_empty() { FinishReason::Stop } else { FinishReason::ToolCalls })
    }
}

/// A text as a JSON string.
pub fn quoted(text: &str) -> String {
    // Text can always be written as JSON.
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned())
}
