//! The sandbox as a provider: conversations for every model, and native embeddings and token counts for the providers
//! that have them. A native chat is refused, since the sandbox would have to understand the whole request.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use domain::ai::{
    AnswerDelta, ClaudeUsage, Conversation, Dialect, FinishReason, GeminiUsage, OpenAiUsage, ReportedUsage,
};
use futures_util::stream::iter;
use ports::ai::{
    AiOperation, AiProvider, CallContent, CallReservation, CallUnanswered, NativeCall, ProviderCall, ProviderFault,
    ProviderRefusal, ProviderReply, ReplyPiece, TokenCounter,
};
use serde_json::{Value, json};

use super::answering::{Saying, answer};
use super::embeddings;

pub struct SandboxProvider {
    counter: Arc<dyn TokenCounter>,
}

impl SandboxProvider {
    pub fn new(counter: Arc<dyn TokenCounter>) -> Self {
        Self { counter }
    }

    fn pieces(&self, call: &ProviderCall) -> Result<Vec<ReplyPiece>, ProviderFault> {
        match &call.content {
            CallContent::Conversation(conversation) => Ok(self.words_said(conversation, call)),
            CallContent::Native(native) => self.native(native, call),
        }
    }

    fn native(&self, native: &NativeCall, call: &ProviderCall) -> Result<Vec<ReplyPiece>, ProviderFault> {
        let body: Value = serde_json::from_str(&native.body).map_err(|_| refused("the body is not JSON"))?;
        let answered = match (native.operation, call.provider.dialect) {
            (AiOperation::Embeddings, Dialect::OpenAiChat) => {
                embeddings::openai(&body, call.model.as_str(), &*self.counter)
            }
            (AiOperation::Embeddings, Dialect::Gemini) => embeddings::gemini(&body, &*self.counter),
            (AiOperation::CountTokens, Dialect::Anthropic | Dialect::Gemini) => {
                let name = if call.provider.dialect == Dialect::Anthropic { "input_tokens" } else { "totalTokens" };
                let counted = json!({ name: embeddings::tokens_of(&body, &*self.counter) });
                return Ok(vec![whole(counted.to_string(), None)]);
            }
            _ => return Err(refused("the sandbox has no answer to this; set a key to ask the provider")),
        };
        let (body, tokens) =
            answered.ok_or_else(|| refused("this is no request for embeddings that the sandbox knows"))?;
        Ok(vec![whole(body, Some(usage(call.provider.dialect, tokens, 0)))])
    }

    fn words_said(&self, conversation: &Conversation, call: &ProviderCall) -> Vec<ReplyPiece> {
        let bound = call.max_output_tokens.or(conversation.max_output_tokens).unwrap_or(u64::MAX);
        let mut words_said =
            Spoken { counter: &*self.counter, left: bound, used: 0, deltas: Vec::new(), is_cut: false };
        let mut finish = FinishReason::Stop;
        for (index, saying) in (0..).zip(answer(conversation, call.model.as_str())) {
            match saying {
                Saying::Text(text) => words_said.words(&text),
                Saying::Call { id, name, arguments } => {
                    words_said.call(index, id, name, arguments);
                    finish = FinishReason::ToolCalls;
                }
            }
        }
        let Spoken { used, mut deltas, is_cut, .. } = words_said;
        deltas.push(AnswerDelta::Finished(if is_cut { FinishReason::Length } else { finish }));
        let input = conversation.texts().map(|text| self.counter.count(text)).sum();
        let usage = usage(call.provider.dialect, input, used);
        if !call.streamed {
            return vec![ReplyPiece {
                deltas: joined(deltas),
                usage: Some(usage),
                is_last: true,
                ..ReplyPiece::default()
            }];
        }
        let last = deltas.pop();
        let piece = |delta| ReplyPiece { deltas: vec![delta], ..ReplyPiece::default() };
        let mut pieces: Vec<ReplyPiece> = deltas.into_iter().map(piece).collect();
        let deltas = last.into_iter().collect();
        pieces.push(ReplyPiece { deltas, usage: Some(usage), is_last: true, ..ReplyPiece::default() });
        pieces
    }
}

/// The answer so far, up to the output limit.
struct Spoken<'a> {
    counter: &'a dyn TokenCounter,
    left: u64,
    used: u64,
    deltas: Vec<AnswerDelta>,
    is_cut: bool,
}

impl Spoken<'_> {
    fn words(&mut self, text: &str) {
        for word in text.split_inclusive(' ') {
            if !self.takes(self.counter.count(word)) {
                return;
            }
            self.deltas.push(AnswerDelta::Text(word.to_owned()));
        }
    }

    fn call(&mut self, index: u32, id: String, name: String, arguments: String) {
        if self.takes(self.counter.count(&name) + self.counter.count(&arguments)) {
            self.deltas.push(AnswerDelta::ToolCallBegun { index, id, name });
            self.deltas.push(AnswerDelta::ToolArguments { index, json: arguments });
        }
    }

    fn takes(&mut self, tokens: u64) -> bool {
        self.is_cut |= tokens > self.left;
        if !self.is_cut {
            self.left -= tokens;
            self.used += tokens;
        }
        !self.is_cut
    }
}

#[async_trait]
impl AiProvider for SandboxProvider {
    async fn send(&self, hold: CallReservation, call: &ProviderCall) -> Result<ProviderReply, CallUnanswered> {
        let pieces = match self.pieces(call) {
            Ok(pieces) => pieces,
            Err(fault) => return Err((hold, fault)),
        };
        Ok(ProviderReply {
            request_id: Some(format!("sandbox-{}", hold.id().0)),
            hold,
            model: Some(call.model.as_str().to_owned()),
            content_type: if call.streamed { "text/event-stream" } else { "application/json" }.to_owned(),
            headers: Vec::new(),
            pieces: Box::pin(iter(VecDeque::from(pieces).into_iter().map(Ok))),
        })
    }

    fn is_sandbox(&self) -> bool {
        true
    }
}

fn refused(message: &str) -> ProviderFault {
    ProviderFault::Refused(ProviderRefusal { status: 400, message: message.to_owned(), ..ProviderRefusal::default() })
}

fn whole(body: String, usage: Option<ReportedUsage>) -> ReplyPiece {
    ReplyPiece { frame: body.into_bytes(), usage, is_last: true, ..ReplyPiece::default() }
}

/// Joins adjacent text deltas into one.
fn joined(deltas: Vec<AnswerDelta>) -> Vec<AnswerDelta> {
    let mut joined: Vec<AnswerDelta> = Vec::new();
    for delta in deltas {
        match (joined.last_mut(), delta) {
            (Some(AnswerDelta::Text(text)), AnswerDelta::Text(word)) => text.push_str(&word),
            (_, delta) => joined.push(delta),
        }
    }
    joined
}

fn usage(dialect: Dialect, input: u64, output: u64) -> ReportedUsage {
    let count = |tokens: u64| Some(i64::try_from(tokens).unwrap_or(i64::MAX));
    let total = count(input.saturating_add(output));
    match dialect {
        Dialect::OpenAiChat => ReportedUsage::OpenAi(
            OpenAiUsage {
                prompt_tokens: count(input),
                completion_tokens: count(output),
                total_tokens: total,
                ..OpenAiUsage::default()
            },
            None,
        ),
        Dialect::Anthropic => ReportedUsage::Claude(ClaudeUsage {
            input_tokens: count(input),
            output_tokens: count(output),
            ..ClaudeUsage::default()
        }),
        Dialect::Gemini => ReportedUsage::Gemini(GeminiUsage {
            prompt_token_count: count(input),
            candidates_token_count: count(output),
            total_token_count: total,
            ..GeminiUsage::default()
        }),
    }
}
