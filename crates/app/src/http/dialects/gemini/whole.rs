//! Renders the deltas of another provider as one complete response.

use ports::ai::ReplyPiece;
use services::ai::answers::AnswerHead;

use super::words::{ModelOrigin, call_part, finish_reason, text_part, thought_part, usage};
use crate::http::dialects::rendering::{AnswerEnd, AnswerRenderer, Transcript};

#[derive(Default)]
pub struct GeminiWhole {
    origin: ModelOrigin,
    said: Transcript,
}

impl AnswerRenderer for GeminiWhole {
    fn content_type(&self, _: &AnswerHead) -> String {
        "application/json; charset=UTF-8".to_owned()
    }

    fn begin(&mut self, head: &AnswerHead) -> Vec<u8> {
        self.origin = ModelOrigin { id: head.call_id.simple().to_string(), model: head.model.to_string() };
        Vec::new()
    }

    fn piece(&mut self, piece: &ReplyPiece) -> Vec<u8> {
        self.said.take(&piece.deltas);
        Vec::new()
    }

    fn end(&mut self, end: AnswerEnd<'_>) -> Vec<u8> {
        let said = &self.said;
        let thought = (!said.thinking.is_empty()).then(|| thought_part(&said.thinking));
        let text = (!said.text.is_empty()).then(|| text_part(&said.text));
        let parts: Vec<String> = thought.into_iter().chain(text).chain(said.calls.iter().map(call_part)).collect();
        let usage = end.receipt().map(|receipt| usage(&receipt.usage));
        let finish = finish_reason(said.finish(end));
        self.origin.response(&parts.join(","), Some(finish), usage).into_bytes()
    }
}
