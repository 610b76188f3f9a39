//! Renders the deltas of another provider as a stream of chat completion chunks.

use domain::ai::AnswerDelta;
use ports::ai::ReplyPiece;
use services::ai::answers::AnswerHead;

use super::words::{finish, usage};
use crate::http::dialects::rendering::{AnswerEnd, AnswerRenderer, RenderedFrame, Transcript, quoted};

pub struct OpenAiChunks {
    frame: RenderedFrame,
    /// The part of a chunk before its choices.
    opening: String,
    said: Transcript,
}

impl OpenAiChunks {
    pub fn new(frame: RenderedFrame) -> Self {
        Self { frame, opening: String::new(), said: Transcript::default() }
    }

    fn chunk(&self, choices: &str, usage: Option<&str>) -> String {
        let usage = match usage {
            Some(usage) => format!(r#","usage":{usage}"#),
            // With include_usage every chunk has the field, and the one without a choice fills it.
            None if self.frame.include_usage => r#","usage":null"#.to_owned(),
            None => String::new(),
        };
        format!("data: {}[{choices}]{usage}}}\n\n", self.opening)
    }

    fn choice(&self, delta: &str, finish: &str) -> String {
        self.chunk(&format!(r#"{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}"#), None)
    }

    fn delta(&mut self, delta: &AnswerDelta) -> Option<String> {
        self.said.take_call(delta);
        let text = match delta {
            AnswerDelta::Text(text) => format!(r#"{{"content":{}}}"#, quoted(text)),
            AnswerDelta::Thinking(text) => format!(r#"{{"reasoning_content":{}}}"#, quoted(text)),
            AnswerDelta::ToolCallBegun { index, id, name } => format!(
                r#"{{"tool_calls":[{{"index":{index},"id":{},"type":"function","function":{{"name":{},"arguments":""}}}}]}}"#,
                quoted(id),
                quoted(name),
            ),
            AnswerDelta::ToolArguments { index, json } => {
                format!(r#"{{"tool_calls":[{{"index":{index},"function":{{"arguments":{}}}}}]}}"#, quoted(json))
            }
            AnswerDelta::Finished(_) => return None,
        };
        Some(self.choice(&text, "null"))
    }
}

impl AnswerRenderer for OpenAiChunks {
    fn content_type(&self, _: &AnswerHead) -> String {
        "text/event-stream".to_owned()
    }

    fn begin(&mut self, head: &AnswerHead) -> Vec<u8> {
        self.opening = format!(
            r#"{{"id":"chatcmpl-{}","object":"chat.completion.chunk","created":{},"model":{},"choices":"#,
            head.call_id.simple(),
            self.frame.created,
            quoted(head.model.as_str()),
        );
        self.choice(r#"{"role":"assistant","content":"","refusal":null}"#, "null").into_bytes()
    }

    fn piece(&mut self, piece: &ReplyPiece) -> Vec<u8> {
        piece.deltas.iter().filter_map(|delta| self.delta(delta)).collect::<String>().into_bytes()
    }

    fn end(&mut self, end: AnswerEnd<'_>) -> Vec<u8> {
        if let AnswerEnd::Broken(problem) = end {
            return format!("data: {}\n\n", self.frame.error(problem)).into_bytes();
        }
        let mut text = self.choice("{}", &format!("\"{}\"", finish(self.said.finish(end))));
        if let (true, Some(receipt)) = (self.frame.include_usage, end.receipt()) {
            text += &self.chunk("", Some(&usage(&receipt.usage)));
        }
        (text + "data: [DONE]\n\n").into_bytes()
    }
}
