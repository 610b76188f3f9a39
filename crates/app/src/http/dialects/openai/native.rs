//! Passes `OpenAI`'s own chunks on unchanged. Their id and model are read once, in case we end the answer.

use ports::ai::ReplyPiece;
use serde::Deserialize;
use services::ai::answers::AnswerHead;

use super::words::usage;
use crate::http::dialects::rendering::{AnswerEnd, AnswerRenderer, RenderedFrame, quoted};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Opening {
    id: String,
    created: i64,
    model: String,
}

pub struct OpenAiNative {
    frame: RenderedFrame,
    opening: Option<Opening>,
}

impl OpenAiNative {
    pub const fn new(frame: RenderedFrame) -> Self {
        Self { frame, opening: None }
    }

    fn chunk(&self, choices: &str, usage: Option<&str>) -> String {
        let (id, created, model) =
            self.opening.as_ref().map_or(("", 0, ""), |known| (&known.id, known.created, &known.model));
        let usage = match usage {
            Some(usage) => format!(r#","usage":{usage}"#),
            None if self.frame.include_usage => r#","usage":null"#.to_owned(),
            None => String::new(),
        };
        format!(
            "data: {{\"id\":{},\"object\":\"chat.completion.chunk\",\"created\":{created},\"model\":{},\
             \"choices\":[{choices}]{usage}}}\n\n",
            quoted(id),
            quoted(model),
        )
    }
}

impl AnswerRenderer for OpenAiNative {
    fn content_type(&self, head: &AnswerHead) -> String {
        head.content_type.clone()
    }

    fn begin(&mut self, _: &AnswerHead) -> Vec<u8> {
        Vec::new()
    }

    fn piece(&mut self, piece: &ReplyPiece) -> Vec<u8> {
        if self.opening.is_none() && !piece.frame.is_empty() {
            let text = String::from_utf8_lossy(&piece.frame);
            let data = text.lines().find_map(|line| line.strip_prefix("data:"));
            self.opening = data.and_then(|data| serde_json::from_str(data.trim()).ok());
        }
        piece.frame.clone()
    }

    fn end(&mut self, end: AnswerEnd<'_>) -> Vec<u8> {
        match end {
            AnswerEnd::Settled(_) => Vec::new(),
            AnswerEnd::Broken(problem) => format!("data: {}\n\n", self.frame.error(problem)).into_bytes(),
            AnswerEnd::Cut(receipt) => {
                let choice = |index| {
                    self.chunk(
                        &format!(r#"{{"index":{index},"delta":{{}},"logprobs":null,"finish_reason":"length"}}"#),
                        None,
                    )
                };
                let mut text: String = (0..self.frame.answers).map(choice).collect();
                if let (true, Some(receipt)) = (self.frame.include_usage, receipt) {
                    text += &self.chunk("", Some(&usage(&receipt.usage)));
                }
                (text + "data: [DONE]\n\n").into_bytes()
            }
        }
    }
}
