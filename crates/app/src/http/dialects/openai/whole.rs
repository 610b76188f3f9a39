//! Renders the deltas of another provider as one complete chat completion.

use ports::ai::ReplyPiece;
use services::ai::answers::AnswerHead;

use super::words::{finish, usage};
use crate::http::dialects::rendering::{AnswerEnd, AnswerRenderer, RenderedFrame, Transcript, quoted};

pub struct OpenAiWhole {
    frame: RenderedFrame,
    id: String,
    model: String,
    said: Transcript,
}

impl OpenAiWhole {
    pub fn new(frame: RenderedFrame) -> Self {
        Self { frame, id: String::new(), model: String::new(), said: Transcript::default() }
    }

    fn message(&self) -> String {
        let calls: Vec<String> = self
            .said
            .calls
            .iter()
            .map(|call| {
                format!(
                    r#"{{"id":{},"type":"function","function":{{"name":{},"arguments":{}}}}}"#,
                    quoted(&call.id),
                    quoted(&call.name),
                    quoted(call.arguments()),
                )
            })
            .collect();
        let is_silent = self.said.text.is_empty() && !calls.is_empty();
        let content = if is_silent { "null".to_owned() } else { quoted(&self.said.text) };
        let thinking = &self.said.thinking;
        let reasoning =
            if thinking.is_empty() { String::new() } else { format!(r#","reasoning_content":{}"#, quoted(thinking)) };
        let calls = if calls.is_empty() { String::new() } else { format!(r#","tool_calls":[{}]"#, calls.join(",")) };
        format!(r#"{{"role":"assistant","content":{content},"refusal":null{reasoning}{calls},"annotations":[]}}"#)
    }
}

impl AnswerRenderer for OpenAiWhole {
    fn content_type(&self, _: &AnswerHead) -> String {
        "application/json".to_owned()
    }

    fn begin(&mut self, head: &AnswerHead) -> Vec<u8> {
        self.id = format!("chatcmpl-{}", head.call_id.simple());
        self.model = head.model.to_string();
        Vec::new()
    }

    fn piece(&mut self, piece: &ReplyPiece) -> Vec<u8> {
        self.said.take(&piece.deltas);
        Vec::new()
    }

    fn end(&mut self, end: AnswerEnd<'_>) -> Vec<u8> {
        let usage = end.receipt().map(|receipt| format!(r#","usage":{}"#, usage(&receipt.usage))).unwrap_or_default();
        let body = format!(
            r#"{{"id":"{}","object":"chat.completion","created":{},"model":{},"choices":[{{"index":0,"message":{},"logprobs":null,"finish_reason":"{}"}}]{usage}}}"#,
            self.id,
            self.frame.created,
            quoted(&self.model),
            self.message(),
            finish(self.said.finish(end)),
        );
        body.into_bytes()
    }
}
