//! Rendering: from the pieces of an answer to the bytes of a dialect. A renderer is a state and three functions; it reads
//! nothing and waits for nothing, so that every byte can be held by a test.

use domain::ai::{Delta, FinishReason};
use ports::ai::ReplyPiece;
use services::ai::answers::{AnswerHead, Receipt};

use super::asked::Form;
use super::dialect::Dialect;
use super::problems;
use super::{anthropic, gemini, openai};
use crate::http::problem::Problem;

/// How an answer ends.
#[derive(Clone, Copy, Debug)]
pub enum End<'a> {
    /// As the provider ended it; this is what it came to.
    Settled(&'a Receipt),
    /// The gateway ended it at what was held, which the dialect tells as `length`. Without a receipt the books could not
    /// be written yet.
    Cut(Option<&'a Receipt>),
    /// It broke off. Only a stream tells it so; an answer that is whole becomes the problem itself.
    Broken(&'a Problem),
}

impl<'a> End<'a> {
    pub const fn receipt(self) -> Option<&'a Receipt> {
        match self {
            Self::Settled(receipt) => Some(receipt),
            Self::Cut(receipt) => receipt,
            Self::Broken(_) => None,
        }
    }
}

/// Writes one answer. `begin` comes once, before the first piece, and `end` once, after the last.
pub trait Renderer: Send {
    fn content_type(&self, head: &AnswerHead) -> String;
    fn begin(&mut self, head: &AnswerHead) -> Vec<u8>;
    fn piece(&mut self, piece: &ReplyPiece) -> Vec<u8>;
    fn end(&mut self, end: End<'_>) -> Vec<u8>;

    /// What keeps a silent stream alive and says nothing. It may come before `begin` and between any two writings.
    fn ping(&mut self) -> Vec<u8> {
        b": ping\n\n".to_vec()
    }
}

/// Everything beside the answer that its rendering depends on.
#[derive(Clone, Debug)]
pub struct Frame {
    pub dialect: Dialect,
    /// Whether the provider speaks the dialect itself, so that its bytes pass as they are.
    pub is_native: bool,
    pub form: Form,
    pub include_usage: bool,
    /// How many answers in one were asked for.
    pub answers: u64,
    /// When it was asked, in seconds since 1970.
    pub created: i64,
    /// What goes in, as it was counted before the call.
    pub input_tokens: u64,
    pub request_id: String,
}

impl Frame {
    pub fn renderer(self) -> Box<dyn Renderer> {
        match (self.form, self.is_native, self.dialect) {
            (Form::Whole, true, _) => Box::new(NativeWhole::default()),
            (Form::Whole, false, Dialect::OpenAi) => Box::new(openai::whole::Whole::new(self)),
            (Form::Whole, false, Dialect::Anthropic) => Box::new(anthropic::whole::Whole::new(self.input_tokens)),
            (Form::Whole, false, Dialect::Gemini) => Box::new(gemini::whole::Whole::default()),
            (Form::Stream(_), true, Dialect::OpenAi) => Box::new(openai::native::Native::new(self)),
            (Form::Stream(_), true, Dialect::Anthropic) => Box::new(anthropic::native::Native::new(self)),
            (Form::Stream(framing), true, Dialect::Gemini) => Box::new(gemini::native::Native::new(self, framing)),
            (Form::Stream(_), false, Dialect::OpenAi) => Box::new(openai::stream::Chunks::new(self)),
            (Form::Stream(_), false, Dialect::Anthropic) => Box::new(anthropic::stream::Events::new(self)),
            (Form::Stream(framing), false, Dialect::Gemini) => Box::new(gemini::stream::Chunks::new(self, framing)),
        }
    }

    /// The body of the dialect's error, as it stands in an event.
    pub fn error(&self, problem: &Problem) -> String {
        problems::body(self.dialect, problem, &self.request_id).to_string()
    }
}

/// An answer that is whole and passes as it is, in all dialects.
#[derive(Default)]
struct NativeWhole {
    body: Vec<u8>,
}

impl Renderer for NativeWhole {
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

    fn end(&mut self, _: End<'_>) -> Vec<u8> {
        std::mem::take(&mut self.body)
    }
}

/// A call of a tool, put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Called {
    index: u32,
    pub id: String,
    pub name: String,
    arguments: String,
}

impl Called {
    /// The arguments as a JSON object; what was cut off is none and shows as an empty one.
    pub fn object(&self) -> &str {
        let is_object = self.arguments.trim_start().starts_with('{')
            && serde_json::from_str::<serde::de::IgnoredAny>(&self.arguments).is_ok();
        if is_object { &self.arguments } else { "{}" }
    }

    /// The arguments as they came.
    pub fn arguments(&self) -> &str {
        &self.arguments
    }
}

/// What was said, put together.
#[derive(Default)]
pub struct Said {
    pub text: String,
    pub thinking: String,
    pub calls: Vec<Called>,
    finish: Option<FinishReason>,
}

impl Said {
    pub fn take(&mut self, deltas: &[Delta]) {
        for delta in deltas {
            match delta {
                Delta::Text(text) => self.text.push_str(text),
                Delta::Thinking(text) => self.thinking.push_str(text),
                other => self.take_call(other),
            }
        }
    }

    /// Calls and the finish alone; text goes out at once where it is streamed.
    pub fn take_call(&mut self, delta: &Delta) {
        match delta {
            Delta::Text(_) | Delta::Thinking(_) => {}
            Delta::ToolCallBegun { index, id, name } => {
                let call = Called { index: *index, id: id.clone(), name: name.clone(), arguments: String::new() };
                self.calls.push(call);
            }
            Delta::ToolArguments { index, json } => {
                if let Some(call) = self.calls.iter_mut().find(|call| call.index == *index) {
                    call.arguments.push_str(json);
                }
            }
            Delta::Finished(reason) => self.finish = Some(*reason),
        }
    }

    /// Why it ended. A provider that did not say why stopped, or waits for its tools.
    pub fn finish(&self, end: End<'_>) -> FinishReason {
        let told = match end {
            End::Cut(_) => Some(FinishReason::Length),
            End::Settled(receipt) => self.finish.or(receipt.finish),
            End::Broken(_) => self.finish,
        };
        told.unwrap_or(if self.calls.is_empty() { FinishReason::Stop } else { FinishReason::ToolCalls })
    }
}

/// A text as JSON.
pub fn quoted(text: &str) -> String {
    // Text is always JSON's to say.
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned())
}
