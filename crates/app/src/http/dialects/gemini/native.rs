//! Gemini's own responses, passed as they are; of an array the commas and brackets are ours.

use ports::ai::{Framing, ReplyPiece};
use serde::Deserialize;
use services::ai::answers::AnswerHead;

use super::framing::Frames;
use super::words::{Origin, text_part, usage};
use crate::http::dialects::rendering::{End, Frame, Renderer};

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Opening {
    response_id: String,
    model_version: String,
}

pub struct Native {
    frame: Frame,
    frames: Frames,
    /// As the provider's first response says it; read once, for an end of ours.
    origin: Option<Origin>,
}

impl Native {
    pub const fn new(frame: Frame, framing: Framing) -> Self {
        Self { frame, frames: Frames::new(framing), origin: None }
    }
}

impl Renderer for Native {
    fn content_type(&self, _: &AnswerHead) -> String {
        self.frames.content_type()
    }

    fn begin(&mut self, _: &AnswerHead) -> Vec<u8> {
        Vec::new()
    }

    fn piece(&mut self, piece: &ReplyPiece) -> Vec<u8> {
        if piece.frame.is_empty() {
            return Vec::new();
        }
        if self.origin.is_none() {
            let text = String::from_utf8_lossy(&piece.frame);
            let data = text.trim_start().strip_prefix("data:").unwrap_or(&text).trim();
            let opening = serde_json::from_str::<Opening>(data).ok();
            self.origin = opening.map(|opening| Origin { id: opening.response_id, model: opening.model_version });
        }
        if !self.frames.is_array() {
            return piece.frame.clone();
        }
        [self.frames.joint(), &piece.frame].concat()
    }

    fn end(&mut self, end: End<'_>) -> Vec<u8> {
        let last = match end {
            End::Settled(_) => None,
            End::Broken(problem) => Some(self.frame.error(problem)),
            End::Cut(receipt) => {
                let usage = receipt.map(|receipt| usage(&receipt.usage));
                let origin = self.origin.take().unwrap_or_default();
                Some(origin.response(&text_part(""), Some("MAX_TOKENS"), usage))
            }
        };
        let last = last.map(|last| self.frames.frame(&last)).unwrap_or_default();
        (last + self.frames.end()).into_bytes()
    }

    fn ping(&mut self) -> Vec<u8> {
        self.frames.ping()
    }
}
