//! Samples for the tests of this room: an answer's head, its pieces, what it came to.

use domain::ai::{Delta, FinishReason, ModelId, Provider, TokenUsage, UsageSource};
use domain::prices::NanoUsd;
use ports::ai::{Framing, ReplyPiece};
use services::ai::answers::{AnswerHead, Receipt};
use uuid::Uuid;

use super::asked::Form;
use super::dialect::Dialect;
use super::rendering::{End, Frame, Renderer};

pub const EVENTS: Form = Form::Stream(Framing::ServerSentEvents);
pub const ARRAY: Form = Form::Stream(Framing::JsonArray);

pub fn head() -> AnswerHead {
    AnswerHead {
        call_id: Uuid::from_u128(0xca11),
        provider: Provider::Claude,
        model: ModelId::parse("m").unwrap(),
        is_sandbox: false,
        request_id: Some("theirs".to_owned()),
        content_type: "text/event-stream".to_owned(),
        headers: Vec::new(),
        lowered_to: None,
    }
}

pub fn receipt() -> Receipt {
    Receipt {
        call_id: Uuid::from_u128(0xca11),
        usage: TokenUsage {
            uncached_input: 3,
            cache_read: 7,
            cache_write_short: 2,
            visible_output: 5,
            reasoning_output: 4,
            ..TokenUsage::default()
        },
        source: UsageSource::Provider,
        cost: Some(NanoUsd(1_500_000)),
        tokens_spent: 0,
        finish: None,
        latency_ms: 12,
    }
}

pub fn frame(dialect: Dialect, form: Form, is_native: bool) -> Frame {
    Frame {
        dialect,
        is_native,
        form,
        include_usage: true,
        answers: 1,
        created: 1_700_000_000,
        input_tokens: 9,
        request_id: "r1".to_owned(),
    }
}

pub fn piece(deltas: &[Delta]) -> ReplyPiece {
    ReplyPiece { deltas: deltas.to_vec(), ..ReplyPiece::default() }
}

pub fn native(frame: &str) -> ReplyPiece {
    ReplyPiece { frame: frame.as_bytes().to_vec(), ..ReplyPiece::default() }
}

pub fn text(text: &str) -> Delta {
    Delta::Text(text.to_owned())
}

/// Thinking, text, and two calls of tools that come side by side.
pub fn everything() -> Vec<ReplyPiece> {
    let begun = |index, name: &str| Delta::ToolCallBegun { index, id: format!("c{index}"), name: name.to_owned() };
    let arguments = |index, json: &str| Delta::ToolArguments { index, json: json.to_owned() };
    vec![
        piece(&[Delta::Thinking("so".to_owned())]),
        piece(&[text("hi \"é\"")]),
        piece(&[begun(0, "f"), arguments(0, "{\"a\":")]),
        piece(&[begun(1, "g"), arguments(1, "{}")]),
        piece(&[arguments(0, " 1}")]),
        piece(&[Delta::Finished(FinishReason::ToolCalls)]),
    ]
}

/// Everything that a renderer writes.
pub fn written(mut renderer: Box<dyn Renderer>, pieces: &[ReplyPiece], end: End<'_>) -> String {
    let mut bytes = renderer.begin(&head());
    for piece in pieces {
        bytes.extend(renderer.piece(piece));
    }
    bytes.extend(renderer.end(end));
    String::from_utf8(bytes).unwrap()
}
