//! Renders the deltas of another provider as a stream of responses. A call is sent as a whole, once it is complete.

use domain::ai::AnswerDelta;
use ports::ai::{ReplyPiece, StreamFraming};
use services::ai::answers::AnswerHead;

use super::framing::GeminiFrames;
use super::words::{ModelOrigin, call_part, finish_reason, text_part, thought_part, usage};
use crate::http::dialects::rendering::{AnswerEnd, AnswerRenderer, RenderedFrame, Transcript};

pub struct GeminiChunks {
    frame: RenderedFrame,
    frames: GeminiFrames,
    origin: ModelOrigin,
    said: Transcript,
    /// How many calls were written.
    told: usize,
}

impl GeminiChunks {
    pub fn new(frame: RenderedFrame, framing: StreamFraming) -> Self {
        Self {
            frame,
            frames: GeminiFrames::new(framing),
            origin: ModelOrigin::default(),
            said: Transcript::default(),
            told: 0,
        }
    }

    /// The calls that were not written yet: text after them, or the end, shows that they are complete.
    fn calls(&mut self) -> Vec<String> {
        let calls = self.said.calls.iter().skip(self.told).map(call_part).collect();
        self.told = self.said.calls.len();
        calls
    }
}

impl AnswerRenderer for GeminiChunks {
    fn content_type(&self, _: &AnswerHead) -> String {
        self.frames.content_type()
    }

    fn begin(&mut self, head: &AnswerHead) -> Vec<u8> {
        self.origin = ModelOrigin { id: head.call_id.simple().to_string(), model: head.model.to_string() };
        Vec::new()
    }

    fn piece(&mut self, piece: &ReplyPiece) -> Vec<u8> {
        let mut parts = Vec::new();
        for delta in &piece.deltas {
            match delta {
                AnswerDelta::Text(text) => {
                    parts.extend(self.calls());
                    parts.push(text_part(text));
                }
                AnswerDelta::Thinking(text) => {
                    parts.extend(self.calls());
                    parts.push(thought_part(text));
                }
                other => self.said.take_call(other),
            }
        }
        if parts.is_empty() {
            return Vec::new();
        }
        let response = self.origin.response(&parts.join(","), None, None);
        self.frames.frame(&response).into_bytes()
    }

    fn end(&mut self, end: AnswerEnd<'_>) -> Vec<u8> {
        let last = if let AnswerEnd::Broken(problem) = end {
            self.frame.error(problem)
        } else {
            let mut parts = self.calls();
            if parts.is_empty() {
                parts.push(text_part(""));
            }
            let usage = end.receipt().map(|receipt| usage(&receipt.usage));
            self.origin.response(&parts.join(","), Some(finish_reason(self.said.finish(end))), usage)
        };
        (self.frames.frame(&last) + self.frames.end()).into_bytes()
    }

    fn ping(&mut self) -> Vec<u8> {
        self.frames.ping()
    }
}
