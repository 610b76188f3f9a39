//! Passes Anthropic's own events on unchanged. It tracks the open block, so that a cut stream can be ended.

use ports::ai::ReplyPiece;
use serde::Deserialize;
use services::ai::answers::AnswerHead;

use super::words::{PING, block_stop, closing, event, usage};
use crate::http::dialects::rendering::{AnswerEnd, AnswerRenderer, RenderedFrame};

/// What the types of the two tracked events have in common.
const WATCHED: &str = "content_block_st";

#[derive(Deserialize)]
struct BlockEvent {
    #[serde(rename = "type")]
    kind: String,
    index: u64,
}

pub struct AnthropicNative {
    frame: RenderedFrame,
    open: Option<u64>,
}

impl AnthropicNative {
    pub const fn new(frame: RenderedFrame) -> Self {
        Self { frame, open: None }
    }
}

impl AnswerRenderer for AnthropicNative {
    fn content_type(&self, head: &AnswerHead) -> String {
        head.content_type.clone()
    }

    fn begin(&mut self, _: &AnswerHead) -> Vec<u8> {
        Vec::new()
    }

    fn piece(&mut self, piece: &ReplyPiece) -> Vec<u8> {
        let text = String::from_utf8_lossy(&piece.frame);
        for data in text.lines().filter_map(|line| line.strip_prefix("data:")).filter(|data| data.contains(WATCHED)) {
            let Ok(block) = serde_json::from_str::<BlockEvent>(data.trim()) else { continue };
            match block.kind.as_str() {
                "content_block_start" => self.open = Some(block.index),
                "content_block_stop" => self.open = None,
                _ => {}
            }
        }
        piece.frame.clone()
    }

    fn end(&mut self, end: AnswerEnd<'_>) -> Vec<u8> {
        match end {
            AnswerEnd::Settled(_) => Vec::new(),
            AnswerEnd::Broken(problem) => event("error", &self.frame.error(problem)).into_bytes(),
            AnswerEnd::Cut(receipt) => {
                let text = self.open.take().map(block_stop).unwrap_or_default();
                let told = receipt.map(|receipt| usage(&receipt.usage));
                (text + &closing("max_tokens", told)).into_bytes()
            }
        }
    }

    fn ping(&mut self) -> Vec<u8> {
        PING.to_vec()
    }
}
