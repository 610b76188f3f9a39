//! Passes Gemini's own responses on unchanged; the commas and brackets of an array are ours.

use ports::ai::{ReplyPiece, StreamFraming};
use serde::Deserialize;
use services::ai::answers::AnswerHead;

use super::framing::GeminiFrames;
use super::words::{ModelOrigin, text_part, usage};
use crate::http::dialects::rendering::{AnswerEnd, AnswerRenderer, RenderedFrame};

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Opening {
    response_id: String,
    model_version: String,
}

pub struct GeminiNative {
    frame: RenderedFrame,
    frames: GeminiFrames,
    /// From the provider's first response; read once, in case we end the answer.
    origin: Option<ModelOrigin>,
}

impl GeminiNative {
    pub const fn new(frame: RenderedFrame, framing: StreamFraming) -> Self {
        Self { frame, frames: GeminiFrames::new(framing), origin: None }
    }
}

impl AnswerRenderer for GeminiNative {
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
            self.origin = opening.map(|opening| ModelOrigin { id: opening.response_id, model: opening.model_version });
        }
        if !self.frames.is_array() {
            return piece.frame.clone();
        }
        [self.frames.joint(), &piece.frame].concat()
    }

    fn end(&mut self, end: AnswerEnd<'_>) -> Vec<u8> {
        let last = match end {
            AnswerEnd::Settled(_) => None,
            AnswerEnd::Broken(problem) => Some(self.frame.error(problem)),
            AnswerEnd::Cut(receipt) => {
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
