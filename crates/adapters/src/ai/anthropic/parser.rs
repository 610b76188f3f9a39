//! Parses Claude's responses: a whole message or its stream events.
//!
//! Lenient: a field of an unexpected kind counts as absent, and an event or a block of an unknown kind is billed by all
//! its text.

use domain::ai::{AnswerDelta, ClaudeUsage, FinishReason, ReportedUsage};
use ports::ai::AiOperation;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::dialect::error_details;
use crate::ai::dialect::{End, ParseError, Parsed, ResponseParser, usage};
use crate::ai::errors::ErrorDetails;
use crate::ai::lenient;
use crate::ai::streaming::error_within;

/// Kinds of block deltas that carry no output of their own.
const SILENT: [&str; 2] = ["signature_delta", "citations_delta"];

/// The members of a block that are read, or that hold no output.
const BLOCK_MEMBERS: [&str; 8] =
    ["type", "text", "thinking", "data", "signature", "citations", "cache_control", "caller"];

pub(super) struct AnthropicParser {
    operation: AiOperation,
    /// The usage so far: each event reports a part of it.
    usage: Option<ClaudeUsage>,
    /// The number of tool calls so far.
    calls: u32,
    open: Option<OpenCall>,
    /// Whether the block that is arriving has thinking in plain text.
    has_thinking: bool,
}

/// The tool call whose arguments are arriving.
struct OpenCall {
    block: u64,
    index: u32,
    /// The `input` that the block had at its start.
    input: String,
    has_arguments: bool,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", default, deserialize_with = "lenient::text")]
    kind: Option<String>,
    #[serde(default, deserialize_with = "lenient::whole")]
    index: Option<u64>,
    #[serde(default, borrow)]
    message: Option<&'a RawValue>,
    #[serde(default, borrow)]
    content_block: Option<&'a RawValue>,
    #[serde(default, borrow)]
    delta: Option<&'a RawValue>,
    #[serde(default, borrow)]
    usage: Option<&'a RawValue>,
    // The fields of a whole message are at the top level.
    #[serde(default, deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    model: Option<String>,
    #[serde(default, borrow)]
    content: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "lenient::text")]
    stop_reason: Option<String>,
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Message<'a> {
    #[serde(deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    model: Option<String>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

/// A content block, or a delta to one.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Block<'a> {
    #[serde(rename = "type", deserialize_with = "lenient::text")]
    kind: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    text: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    thinking: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    partial_json: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    name: Option<String>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    /// Encrypted thinking.
    #[serde(deserialize_with = "lenient::text")]
    data: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    signature: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    stop_reason: Option<String>,
}

impl Block<'_> {
    fn is_known(&self) -> bool {
        self.text.is_some() || self.thinking.is_some() || self.partial_json.is_some() || self.is_silent()
    }

    fn is_silent(&self) -> bool {
        self.kind.as_deref().is_some_and(|kind| SILENT.contains(&kind))
    }
}

impl AnthropicParser {
    pub(super) const fn new(operation: AiOperation) -> Self {
        Self { operation, usage: None, calls: 0, open: None, has_thinking: false }
    }

    fn counted(&mut self, raw: Option<&RawValue>) -> Option<ReportedUsage> {
        let reported: ClaudeUsage = usage(raw)?;
        let merged = match self.usage.take() {
            Some(earlier) => earlier.followed_by(reported),
            None => reported,
        };
        self.usage = Some(merged.clone());
        Some(ReportedUsage::Claude(merged))
    }

    /// The start of a block, or a whole block.
    fn opened(&mut self, block: u64, raw: &RawValue, parsed: &mut Parsed) {
        self.has_thinking = false;
        let Some(content) = lenient::read::<Block<'_>>(Some(raw)) else {
            parsed.add_output(&lenient::output_within(raw.get().as_bytes()));
            return;
        };
        self.said(&content, parsed);
        match content.kind.as_deref() {
            Some("tool_use") => {
                let index = self.calls;
                self.calls += 1;
                let id = content.id.unwrap_or_else(|| format!("toolu_{index}"));
                parsed.deltas.push(AnswerDelta::ToolCallBegun { index, id, name: content.name.unwrap_or_default() });
                let input = content.input.map_or("{}", RawValue::get).to_owned();
                self.open = Some(OpenCall { block, index, input, has_arguments: false });
            }
            // The result of a tool that the provider ran is input of the model.
            Some(kind) if kind.ends_with("_result") => {}
            _ => parsed.add_output(&lenient::output_beside(raw, &BLOCK_MEMBERS)),
        }
    }

    /// The output of a block, or of a delta to one. Thinking that is encrypted only is estimated by its length.
    fn said(&mut self, content: &Block<'_>, parsed: &mut Parsed) {
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let thinking = text(&content.thinking);
        self.has_thinking |= thinking.is_some();
        parsed.deltas.extend(thinking.map(AnswerDelta::Thinking));
        parsed.deltas.extend(text(&content.text).map(AnswerDelta::Text));
        let signature = content.signature.as_ref().filter(|_| !self.has_thinking);
        for encrypted in content.data.iter().chain(signature) {
            parsed.hidden_tokens = parsed.hidden_tokens.saturating_add(lenient::encrypted_tokens(encrypted.len()));
        }
    }

    fn continued(&mut self, block: u64, raw: &RawValue) -> Parsed {
        let delta: Block<'_> = lenient::read(Some(raw)).unwrap_or_default();
        if !delta.is_known() {
            return Parsed::unread(lenient::output_within(raw.get().as_bytes()));
        }
        let mut parsed = Parsed::default();
        self.said(&delta, &mut parsed);
        if let Some(json) = delta.partial_json.as_ref().filter(|json| !json.is_empty()) {
            parsed.deltas.push(match self.open.as_mut().filter(|open| open.block == block) {
                Some(open) => {
                    open.has_arguments = true;
                    AnswerDelta::ToolArguments { index: open.index, json: json.clone() }
                }
                // Arguments of a provider's built-in tool: billed as output, but no tool call of the caller.
                None => AnswerDelta::Thinking(json.clone()),
            });
        }
        parsed
    }

    /// A call without argument deltas keeps the `input` of its start.
    fn closed(&mut self, block: u64) -> Vec<AnswerDelta> {
        match self.open.take_if(|open| open.block == block) {
            Some(OpenCall { index, input, has_arguments: false, .. }) => {
                vec![AnswerDelta::ToolArguments { index, json: input }]
            }
            _ => Vec::new(),
        }
    }

    fn whole(&mut self, event: Event<'_>) -> Parsed {
        let mut parsed = Parsed::default();
        for (block, content) in (0..).zip(lenient::items::<&RawValue>(event.content)) {
            self.opened(block, content, &mut parsed);
            parsed.deltas.extend(self.closed(block));
        }
        parsed.deltas.extend(event.stop_reason.as_deref().map(finish).map(AnswerDelta::Finished));
        Parsed { usage: self.counted(event.usage), request_id: event.id, model: event.model, ..parsed }
    }

    fn event(&mut self, event: Event<'_>, data: &[u8]) -> Result<Parsed, ParseError> {
        let message: Message<'_> = lenient::read(event.message).unwrap_or_default();
        if lenient::is_error(event.error) {
            let details = error_details(data);
            let usage = self.counted(event.usage.or(message.usage));
            return Err(error_within(status_of(&details), details, usage, data));
        }
        let block = event.index.unwrap_or_default();
        let of_deltas = |deltas: Vec<AnswerDelta>| Parsed { deltas, ..Parsed::default() };
        let unknown = || Parsed::unread(lenient::output_within(data));
        Ok(match event.kind.as_deref() {
            Some("message") => self.whole(event),
            Some("message_start") => {
                let usage = self.counted(message.usage);
                Parsed { usage, request_id: message.id, model: message.model, ..Parsed::default() }
            }
            Some("content_block_start") => {
                let mut parsed = Parsed::default();
                if let Some(content) = event.content_block {
                    self.opened(block, content, &mut parsed);
                }
                parsed
            }
            Some("content_block_delta") => event.delta.map_or_else(unknown, |delta| self.continued(block, delta)),
            Some("content_block_stop") => of_deltas(self.closed(block)),
            Some("message_delta") => {
                let reason = lenient::read::<Block<'_>>(event.delta).and_then(|delta| delta.stop_reason);
                let end = if reason.is_some() { End::Complete } else { End::GoesOn };
                let deltas = reason.as_deref().map(finish).map(AnswerDelta::Finished).into_iter().collect();
                Parsed { deltas, usage: self.counted(event.usage), end, ..Parsed::default() }
            }
            Some("message_stop") => Parsed { end: End::Last, ..Parsed::default() },
            Some("ping") => Parsed::default(),
            None if self.operation == AiOperation::CountTokens => Parsed::default(),
            // An event that is newer than this parser; the caller may know it. Its usage is billed all the same.
            Some(_) | None => Parsed { usage: self.counted(event.usage.or(message.usage)), ..unknown() },
        })
    }
}

impl ResponseParser for AnthropicParser {
    fn parse(&mut self, data: &[u8]) -> Result<Parsed, ParseError> {
        let parsed = lenient::object(data, |text| {
            let event: Event<'_> = serde_json::from_slice(text).ok()?;
            // A message with a member that comes twice is read from the rewritten text.
            let is_readable = event.message.is_none_or(lenient::is_readable::<Message<'_>>);
            is_readable.then(|| self.event(event, data))
        });
        parsed.unwrap_or(Err(ParseError::Nonsense("a frame of it is no JSON object")))
    }
}

/// The status that the error would have had before the stream began.
fn status_of(details: &ErrorDetails) -> u16 {
    match details.code.as_deref() {
        Some("invalid_request_error") => 400,
        Some("authentication_error") => 401,
        Some("billing_error") => 402,
        Some("permission_error") => 403,
        Some("not_found_error") => 404,
        Some("request_too_large") => 413,
        Some("rate_limit_error" | "enforced_spend_limit_reached") => 429,
        Some("timeout_error") => 504,
        Some("overloaded_error") => 529,
        _ => 500,
    }
}

fn finish(reason: &str) -> FinishReason {
    match reason {
        "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
        "tool_use" => FinishReason::ToolCalls,
        "refusal" => FinishReason::Filtered,
        _ => FinishReason::Stop,
    }
}
