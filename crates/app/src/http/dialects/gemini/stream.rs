//! A stream of responses, out of the deltas of another provider. A call comes as a whole, once nothing more is added to it.

use domain::ai::Delta;
use ports::ai::{Framing, ReplyPiece};
use services::ai::answers::AnswerHead;

use super::framing::Frames;
use super::words::{Origin, call_part, finish_reason, text_part, thought_part, usage};
use crate::http::dialects::rendering::{End, Frame, Renderer, Said};

pub struct Chunks {
    frame: Frame,
    frames: Frames,
    origin: Origin,
    said: Said,
    /// How many calls were told.
    told: usize,
}

impl Chunks {
    pub fn new(frame: Frame, framing: Framing) -> Self {
        Self { frame, frames: Frames::new(framing), origin: Origin::default(), said: Said::default(), told: 0 }
    }

    /// The calls that were not told yet: text after them, or the end, shows that they are whole.
    fn calls(&mut self) -> Vec<String> {
        let calls = self.said.calls.iter().skip(self.told).map(call_part).collect();
        self.told = self.said.calls.len();
        calls
    }
}

impl Renderer for Chunks {
    fn content_type(&self, _: &AnswerHead) -> String {
        self.frames.content_type()
    }

    fn begin(&mut self, head: &AnswerHead) -> Vec<u8> {
        self.origin = Origin { id: head.call_id.simple().to_string(), model: head.model.to_string() };
        Vec::new()
    }

    fn piece(&mut self, piece: &ReplyPiece) -> Vec<u8> {
        let mut parts = Vec::new();
        for delta in &piece.deltas {
            match delta {
                Delta::Text(text) => {
                    parts.extend(self.calls());
                    parts.push(text_part(text));
                }
                Delta::Thinking(text) => {
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

    fn end(&mut self, end: End<'_>) -> Vec<u8> {
        let last = if let End::Broken(problem) = end {
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
