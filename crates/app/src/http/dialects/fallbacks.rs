//! Fallbacks of native calls: a call in the words of one provider that another one may come to answer.

use domain::ai::{Conversation, Provider};
use ports::ai::ReplyPiece;
use services::ai::answers::AnswerHead;
use services::ai::fallbacks::Translation;

use super::dialect::Dialect;
use super::reading::foreign;
use super::rendering::{End, Frame, Renderer};
use super::{anthropic, gemini, openai};
use crate::http::problem::Problem;

/// How long the name of a field may be in a log line.
const FIELD_MAX: usize = 100;

/// Makes a conversation of a body in this dialect. `answers` is how many it asks for.
pub fn translation(dialect: Dialect, answers: u64) -> Translation {
    Translation::by(move |body, provider| {
        translate(dialect, body, provider, answers).map_err(|problem| named_field(&problem))
    })
}

/// The conversation of a body, for a model of another provider.
pub fn translate(dialect: Dialect, body: &str, provider: Provider, answers: u64) -> Result<Conversation, Problem> {
    if answers > 1 {
        let field = if dialect == Dialect::Gemini { "generationConfig.candidateCount" } else { "n" };
        return Err(foreign(field, provider));
    }
    match dialect {
        Dialect::OpenAi => openai::conversation::translate(body, provider),
        Dialect::Anthropic => anthropic::conversation::translate(body, provider),
        Dialect::Gemini => gemini::conversation::translate(body, provider),
    }
}

/// The path of the field that is wrong, as far as it is a name: a body may have anything in its place.
fn named_field(problem: &Problem) -> String {
    let field = problem.fields.get("errors").and_then(|errors| errors.pointer("/0/field")?.as_str());
    let is_of_name = |character: &char| character.is_ascii_alphanumeric() || "_.-[]".contains(*character);
    field.unwrap_or_default().chars().filter(is_of_name).take(FIELD_MAX).collect()
}

/// Writes what its own provider sends as it came, and what another one answers in the words of the dialect.
pub struct ByWhom {
    own: Provider,
    native: Box<dyn Renderer>,
    translated: Box<dyn Renderer>,
    /// Whether the provider's own frames come; known once the answer begins.
    is_native: bool,
    was_pinged: bool,
}

impl ByWhom {
    pub fn new(frame: Frame) -> Self {
        let own = frame.dialect.provider();
        let translated = Frame { is_native: false, ..frame.clone() }.renderer();
        Self { own, native: frame.renderer(), translated, is_native: true, was_pinged: false }
    }

    fn chosen(&mut self) -> &mut dyn Renderer {
        if self.is_native { &mut *self.native } else { &mut *self.translated }
    }
}

impl Renderer for ByWhom {
    fn content_type(&self, head: &AnswerHead) -> String {
        if head.provider == self.own { self.native.content_type(head) } else { self.translated.content_type(head) }
    }

    fn begin(&mut self, head: &AnswerHead) -> Vec<u8> {
        self.is_native = head.provider == self.own;
        if self.was_pinged && !self.is_native {
            // The other one has opened the answer with its ping.
            self.translated.ping();
        }
        self.chosen().begin(head)
    }

    fn piece(&mut self, piece: &ReplyPiece) -> Vec<u8> {
        self.chosen().piece(piece)
    }

    fn end(&mut self, end: End<'_>) -> Vec<u8> {
        self.chosen().end(end)
    }

    fn ping(&mut self) -> Vec<u8> {
        self.was_pinged = true;
        self.chosen().ping()
    }
}
