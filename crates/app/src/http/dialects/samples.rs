//! Samples for the tests of the dialects: an answer's head, its pieces, its receipt.

use domain::ai::{AnswerDelta, Dialect, FinishReason, ModelId, ProviderProfile, TokenUsage, UsageSource};
use domain::prices::NanoUsd;
use ports::ai::{ReplyPiece, StreamFraming};
use services::ai::answers::{AnswerHead, CallReceipt};
use uuid::Uuid;

use super::rendering::{AnswerEnd, AnswerRenderer, RenderedFrame};
use super::request_summary::OutputForm;

pub const EVENTS: OutputForm = OutputForm::Stream(StreamFraming::ServerSentEvents);
pub const ARRAY: OutputForm = OutputForm::Stream(StreamFraming::JsonArray);

pub fn head() -> AnswerHead {
    AnswerHead {
        call_id: Uuid::from_u128(0xca11),
        provider: ProviderProfile::CLAUDE,
        model: ModelId::parse("m").unwrap(),
        is_sandbox: false,
        request_id: Some("theirs".to_owned()),
        content_type: "text/event-stream".to_owned(),
        headers: Vec::new(),
        lowered_to: None,
    }
}

pub fn receipt() -> CallReceipt {
    CallReceipt {
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

pub fn frame(dialect: Dialect, form: OutputForm, is_native: bool) -> RenderedFrame {
    RenderedFrame {
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

pub fn piece(deltas: &[AnswerDelta]) -> ReplyPiece {
    ReplyPiece { deltas: deltas.to_vec(), ..ReplyPiece::default() }
}

pub fn native(frame: &str) -> ReplyPiece {
    ReplyPiece { frame: frame.as_bytes().to_vec(), ..ReplyPiece::default() }
}

pub fn text(text: &str) -> AnswerDelta {
    AnswerDelta::Text(text.to_owned())
}

/// Thinking, text, and two tool calls in parallel.
pub fn everything() -> Vec<ReplyPiece> {
    let begun =
        |index, name: &str| AnswerDelta::ToolCallBegun { index, id: format!("c{index}"), name: name.to_owned() };
    let arguments = |index, json: &str| AnswerDelta::ToolArguments { index, json: json.to_owned() };
    vec![
        piece(&[AnswerDelta::Thinking("so".to_owned())]),
        piece(&[text("hi \"é\"")]),
        piece(&[begun(0, "f"), arguments(0, "{\"a\":")]),
        piece(&[begun(1, "g"), arguments(1, "{}")]),
        piece(&[arguments(0, " 1}")]),
        piece(&[AnswerDelta::Finished(FinishReason::ToolCalls)]),
    ]
}

/// Everything that a renderer writes.
pub fn written(mut renderer: Box<dyn AnswerRenderer>, pieces: &[ReplyPiece], end: AnswerEnd<'_>) -> String {
    let mut bytes = renderer.begin(&head());
    for piece in pieces {
        bytes.extend(renderer.piece(piece));
    }
    bytes.extend(renderer.end(end));
    String::from_utf8(bytes).unwrap()
}
