//! Renders the deltas of another provider as a stream of message events.
//!
//! Here blocks come one after the other, while other providers send tool calls in parallel: the first one is streamed,
//! and the others wait until they are known to be complete.

use domain::ai::AnswerDelta;
use ports::ai::ReplyPiece;
use services::ai::answers::AnswerHead;

use super::words::{PING, block_stop, closing, event, stop_reason, usage};
use crate::http::dialects::rendering::{
    AnswerEnd, AnswerRenderer, RenderedFrame, RenderedToolCall, Transcript, quoted,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Thinking,
    Text,
    Call(u32),
}

pub struct AnthropicEvents {
    frame: RenderedFrame,
    said: Transcript,
    open: Option<Block>,
    /// How many blocks have begun.
    begun: u64,
    /// Calls that wait for the end of the open one, by their index in `said`.
    waiting: Vec<usize>,
}

impl AnthropicEvents {
    pub fn new(frame: RenderedFrame) -> Self {
        Self { frame, said: Transcript::default(), open: None, begun: 0, waiting: Vec::new() }
    }

    fn close(&mut self) -> String {
        let last = self.begun.saturating_sub(1);
        self.open.take().map(|_| block_stop(last)).unwrap_or_default()
    }

    fn start(&mut self, block: Block, content: &str) -> String {
        let before = self.close();
        self.open = Some(block);
        let index = self.begun;
        self.begun += 1;
        let data = format!(r#"{{"type":"content_block_start","index":{index},"content_block":{content}}}"#);
        before + &event("content_block_start", &data)
    }

    fn delta(&self, delta: &str) -> String {
        let index = self.begun.saturating_sub(1);
        let data = format!(r#"{{"type":"content_block_delta","index":{index},"delta":{delta}}}"#);
        event("content_block_delta", &data)
    }

    fn start_call(&mut self, index: u32, id: &str, name: &str) -> String {
        let content = format!(r#"{{"type":"tool_use","id":{},"name":{},"input":{{}}}}"#, quoted(id), quoted(name));
        self.start(Block::Call(index), &content)
    }

    fn arguments(&self, json: &str) -> String {
        self.delta(&format!(r#"{{"type":"input_json_delta","partial_json":{}}}"#, quoted(json)))
    }

    /// Writes the calls that waited for the open one to end.
    fn calls_are_whole(&mut self) -> String {
        let mut text = String::new();
        for place in std::mem::take(&mut self.waiting) {
            let Some(call) = self.said.calls.get(place).cloned() else { continue };
            text += &self.whole_call(&call);
        }
        text
    }

    fn whole_call(&mut self, call: &RenderedToolCall) -> String {
        // Its own index is not needed any more: nothing is added to it.
        let start = self.start_call(u32::MAX, &call.id, &call.name);
        start + &self.arguments(call.arguments())
    }

    fn says(&mut self, block: Block, empty: &str, delta: &str) -> String {
        let mut text = self.calls_are_whole();
        if self.open != Some(block) {
            text += &self.start(block, empty);
        }
        text + &self.delta(delta)
    }

    fn take(&mut self, delta: &AnswerDelta) -> String {
        self.said.take_call(delta);
        match delta {
            AnswerDelta::Text(said) => self.says(
                Block::Text,
                r#"{"type":"text","text":""}"#,
                &format!(r#"{{"type":"text_delta","text":{}}}"#, quoted(said)),
            ),
            AnswerDelta::Thinking(said) => self.says(
                Block::Thinking,
                r#"{"type":"thinking","thinking":"","signature":""}"#,
                &format!(r#"{{"type":"thinking_delta","thinking":{}}}"#, quoted(said)),
            ),
            AnswerDelta::ToolCallBegun { .. } if matches!(self.open, Some(Block::Call(_))) => {
                self.waiting.push(self.said.calls.len().saturating_sub(1));
                String::new()
            }
            AnswerDelta::ToolCallBegun { index, id, name } => self.start_call(*index, id, name),
            AnswerDelta::ToolArguments { index, json } if self.open == Some(Block::Call(*index)) => {
                self.arguments(json)
            }
            AnswerDelta::ToolArguments { .. } | AnswerDelta::Finished(_) => String::new(),
        }
    }
}

impl AnswerRenderer for AnthropicEvents {
    fn content_type(&self, _: &AnswerHead) -> String {
        "text/event-stream; charset=utf-8".to_owned()
    }

    fn begin(&mut self, head: &AnswerHead) -> Vec<u8> {
        let data = format!(
            r#"{{"type":"message_start","message":{{"id":"msg_{}","type":"message","role":"assistant","model":{},"content":[],"stop_reason":null,"stop_sequence":null,"usage":{{"input_tokens":{},"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1}}}}}}"#,
            head.call_id.simple(),
            quoted(head.model.as_str()),
            self.frame.input_tokens,
        );
        event("message_start", &data).into_bytes()
    }

    fn piece(&mut self, piece: &ReplyPiece) -> Vec<u8> {
        piece.deltas.iter().map(|delta| self.take(delta)).collect::<String>().into_bytes()
    }

    fn end(&mut self, end: AnswerEnd<'_>) -> Vec<u8> {
        if let AnswerEnd::Broken(problem) = end {
            return event("error", &self.frame.error(problem)).into_bytes();
        }
        let mut text = self.calls_are_whole() + &self.close();
        let told = end.receipt().map(|receipt| usage(&receipt.usage));
        text += &closing(stop_reason(self.said.finish(end)), told);
        text.into_bytes()
    }

    fn ping(&mut self) -> Vec<u8> {
        PING.to_vec()
    }
}
