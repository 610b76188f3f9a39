//! Fallbacks of native calls: a call in one provider's format that another provider may answer.

use domain::ai::{Conversation, Dialect, ProviderId};
use ports::ai::ReplyPiece;
use services::ai::answers::AnswerHead;
use services::ai::fallbacks::CallTranslation;

use super::reading::foreign;
use super::rendering::{AnswerEnd, AnswerRenderer, RenderedFrame};
use super::{anthropic, gemini, openai};
use crate::http::problem::Problem;

/// How long the name of a field in a log line may be.
const FIELD_MAX: usize = 100;

/// Translates a body in this dialect into a conversation. `answers` is how many answers it asks for.
pub fn translation(dialect: Dialect, answers: u64) -> CallTranslation {
    CallTranslation::by(move |body, provider| {
        translate(dialect, body, provider, answers).map_err(|problem| named_field(&problem))
    })
}

/// Translates a body into a conversation, for a model of another provider.
pub fn translate(dialect: Dialect, body: &str, provider: ProviderId, answers: u64) -> Result<Conversation, Problem> {
    if answers > 1 {
        let field = if dialect == Dialect::Gemini { "generationConfig.candidateCount" } else { "n" };
        return Err(foreign(field, provider));
    }
    match dialect {
        Dialect::OpenAiChat => openai::conversation::translate(body, provider),
        Dialect::Anthropic => anthropic::conversation::translate(body, provider),
        Dialect::Gemini => gemini::conversation::translate(body, provider),
    }
}

/// The path of the wrong field, without characters that names do not have: a body may have anything in its place.
fn named_field(problem: &Problem) -> String {
    let field = problem.fields.get("errors").and_then(|errors| errors.pointer("/0/field")?.as_str());
    let is_of_name = |character: &char| character.is_ascii_alphanumeric() || "_.-[]".contains(*character);
    field.unwrap_or_default().chars().filter(is_of_name).take(FIELD_MAX).collect()
}

/// Passes on what the dialect's own provider sends, and renders the answer of another provider in the dialect.
pub struct ByWhom {
    own: Dialect,
    native: Box<dyn AnswerRenderer>,
    translated: Box<dyn AnswerRenderer>,
    /// Whether the dialect's own provider answers; known once the answer begins.
    is_native: bool,
    was_pinged: bool,
}

impl ByWhom {
    pub fn new(frame: RenderedFrame) -> Self {
        let own = frame.dialect;
        let translated = RenderedFrame { is_native: false, ..frame.clone() }.renderer();
        Self { own, native: frame.renderer(), translated, is_native: true, was_pinged: false }
    }

    fn chosen(&mut self) -> &mut dyn AnswerRenderer {
        if self.is_native { &mut *self.native } else { &mut *self.translated }
    }
}

impl AnswerRenderer for ByWhom {
    fn content_type(&self, head: &AnswerHead) -> String {
        if head.provider.dialect == self.own {
            self.native.content_type(head)
        } else {
            self.translated.content_type(head)
        }
    }

    fn begin(&mut self, head: &AnswerHead) -> Vec<u8> {
        self.is_native = head.provider.dialect == self.own;
        if self.was_pinged && !self.is_native {
            // The native renderer has opened the answer with its ping.
            self.translated.ping();
        }
        self.chosen().begin(head)
    }

    fn piece(&mut self, piece: &ReplyPiece) -> Vec<u8> {
        self.chosen().piece(piece)
    }

    fn end(&mut self, end: AnswerEnd<'_>) -> Vec<u8> {
        self.chosen().end(end)
    }

    fn ping(&mut self) -> Vec<u8> {
        self.was_pinged = true;
        self.chosen().ping()
    }
}
