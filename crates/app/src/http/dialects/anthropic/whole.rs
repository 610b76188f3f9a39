//! Renders the deltas of another provider as one complete message.

use ports::ai::ReplyPiece;
use services::ai::answers::AnswerHead;

use super::words::{stop_reason, usage};
use crate::http::dialects::rendering::{AnswerEnd, AnswerRenderer, Transcript, quoted};

pub struct AnthropicWhole {
    id: String,
    model: String,
    said: Transcript,
    input_tokens: u64,
}

impl AnthropicWhole {
    pub fn new(input_tokens: u64) -> Self {
        Self { id: String::new(), model: String::new(), said: Transcript::default(), input_tokens }
    }

    fn blocks(&self) -> String {
        let mut blocks = Vec::new();
        if !self.said.thinking.is_empty() {
            blocks.push(format!(r#"{{"type":"thinking","thinking":{},"signature":""}}"#, quoted(&self.said.thinking)));
        }
        if !self.said.text.is_empty() {
            blocks.push(format!(r#"{{"type":"text","text":{}}}"#, quoted(&self.said.text)));
        }
        blocks.extend(self.said.calls.iter().map(|call| {
            format!(
                r#"{{"type":"tool_use","id":{},"name":{},"input":{}}}"#,
                quoted(&call.id),
                quoted(&call.name),
                call.object()
            )
        }));
        blocks.join(",")
    }
}

impl AnswerRenderer for AnthropicWhole {
    fn content_type(&self, _: &AnswerHead) -> String {
        "application/json".to_owned()
    }

    fn begin(&mut self, head: &AnswerHead) -> Vec<u8> {
        self.id = format!("msg_{}", head.call_id.simple());
        self.model = head.model.to_string();
        Vec::new()
    }

    fn piece(&mut self, piece: &ReplyPiece) -> Vec<u8> {
        self.said.take(&piece.deltas);
        Vec::new()
    }

    fn end(&mut self, end: AnswerEnd<'_>) -> Vec<u8> {
        let told = end.receipt().map_or_else(
            || format!(r#"{{"input_tokens":{},"output_tokens":0}}"#, self.input_tokens),
            |receipt| usage(&receipt.usage),
        );
        let body = format!(
            r#"{{"id":"{}","type":"message","role":"assistant","model":{},"content":[{}],"stop_reason":"{}","stop_sequence":null,"usage":{told}}}"#,
            self.id,
            quoted(&self.model),
            self.blocks(),
            stop_reason(self.said.finish(end)),
        );
        body.into_bytes()
    }
}
