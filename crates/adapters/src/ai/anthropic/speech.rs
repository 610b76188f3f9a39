//! What Claude says, in a whole message or in its events.

use domain::ai::{ClaudeUsage, Delta, FinishReason, ReportedUsage};
use ports::ai::Operation;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::dialect::told;
use crate::ai::dialect::{End, Heard, Misheard, Speech, usage};
use crate::ai::faults::Told;
use crate::ai::streaming::error_within;

pub(super) struct AnthropicSpeech {
    operation: Operation,
    /// What is known of the usage: each event tells a part.
    usage: Option<ClaudeUsage>,
    /// How many tools were called.
    calls: u32,
    open: Option<OpenCall>,
}

/// The call whose arguments come.
struct OpenCall {
    block: u64,
    index: u32,
    /// What the block had in it when it was opened.
    input: String,
    has_arguments: bool,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    index: u64,
    #[serde(borrow)]
    message: Option<Message<'a>>,
    #[serde(borrow)]
    content_block: Option<Block<'a>>,
    #[serde(borrow)]
    delta: Option<Block<'a>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    // A whole message stands at the top itself.
    id: Option<String>,
    model: Option<String>,
    #[serde(borrow)]
    content: Option<Vec<Block<'a>>>,
    stop_reason: Option<String>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    id: Option<String>,
    model: Option<String>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

/// A block of the content, or what is added to one.
#[derive(Deserialize)]
struct Block<'a> {
    #[serde(rename = "type")]
    kind: Option<String>,
    text: Option<String>,
    thinking: Option<String>,
    partial_json: Option<String>,
    id: Option<String>,
    name: Option<String>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    stop_reason: Option<String>,
}

impl AnthropicSpeech {
    pub(super) const fn new(operation: Operation) -> Self {
        Self { operation, usage: None, calls: 0, open: None }
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

    /// A block as it begins, or a whole one.
    fn opened(&mut self, block: u64, content: Block<'_>) -> Vec<Delta> {
        let mut deltas = said(&content);
        if content.kind.as_deref() == Some("tool_use") {
            let index = self.calls;
            self.calls += 1;
            let id = content.id.unwrap_or_else(|| format!("toolu_{index}"));
            deltas.push(Delta::ToolCallBegun { index, id, name: content.name.unwrap_or_default() });
            let input = content.input.map_or("{}", RawValue::get).to_owned();
            self.open = Some(OpenCall { block, index, input, has_arguments: false });
        }
        deltas
    }

    fn continued(&mut self, block: u64, delta: &Block<'_>) -> Vec<Delta> {
        let mut deltas = said(delta);
        if let Some(json) = delta.partial_json.as_ref().filter(|json| !json.is_empty()) {
            deltas.push(match self.open.as_mut().filter(|open| open.block == block) {
                Some(open) => {
                    open.has_arguments = true;
                    Delta::ToolArguments { index: open.index, json: json.clone() }
                }
                // The arguments of a tool of the provider's own: output that is paid for, and no call of the caller's.
                None => Delta::Thinking(json.clone()),
            });
        }
        deltas
    }

    /// A call without further arguments has those that it was opened with.
    fn closed(&mut self, block: u64) -> Vec<Delta> {
        match self.open.take_if(|open| open.block == block) {
            Some(OpenCall { index, input, has_arguments: false, .. }) => {
                vec![Delta::ToolArguments { index, json: input }]
            }
            _ => Vec::new(),
        }
    }

    fn whole(&mut self, event: Event<'_>) -> Heard {
        let mut deltas = Vec::new();
        for (block, content) in (0..).zip(event.content.unwrap_or_default()) {
            deltas.extend(self.opened(block, content));
            deltas.extend(self.closed(block));
        }
        deltas.extend(event.stop_reason.as_deref().map(finish).map(Delta::Finished));
        let usage = self.counted(event.usage);
        Heard { deltas, usage, request_id: event.id, model: event.model, ..Heard::default() }
    }
}

impl Speech for AnthropicSpeech {
    fn hear(&mut self, data: &[u8]) -> Result<Heard, Misheard> {
        let event: Event<'_> =
            serde_json::from_slice(data).map_err(|_| Misheard::Nonsense("a frame of it is no event of a message's"))?;
        let heard = match event.kind.as_deref() {
            _ if event.error.is_some_and(|error| error.get() != "null") => {
                let told = told(data);
                return Err(error_within(status_of(&told), told, data));
            }
            Some("message") => self.whole(event),
            Some("message_start") => {
                let Some(message) = event.message else { return Err(Misheard::Nonsense("its message has no start")) };
                let usage = self.counted(message.usage);
                Heard { usage, request_id: message.id, model: message.model, ..Heard::default() }
            }
            Some("content_block_start") => {
                let deltas = event.content_block.map(|block| self.opened(event.index, block));
                Heard { deltas: deltas.unwrap_or_default(), ..Heard::default() }
            }
            Some("content_block_delta") => {
                let deltas = event.delta.map(|delta| self.continued(event.index, &delta));
                Heard { deltas: deltas.unwrap_or_default(), ..Heard::default() }
            }
            Some("content_block_stop") => Heard { deltas: self.closed(event.index), ..Heard::default() },
            Some("message_delta") => {
                let reason = event.delta.and_then(|delta| delta.stop_reason);
                let deltas = reason.as_deref().map(finish).map(Delta::Finished).into_iter().collect();
                Heard { deltas, usage: self.counted(event.usage), ..Heard::default() }
            }
            Some("message_stop") => Heard { end: End::Last, ..Heard::default() },
            // A ping, or an event of days to come, which the caller may know.
            Some(_) => Heard::default(),
            None if self.operation == Operation::CountTokens => Heard::default(),
            None => return Err(Misheard::Nonsense("it is no message")),
        };
        Ok(heard)
    }
}

fn said(content: &Block<'_>) -> Vec<Delta> {
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let thinking = text(&content.thinking).map(Delta::Thinking);
    thinking.into_iter().chain(text(&content.text).map(Delta::Text)).collect()
}

/// The status under which the error would have come at the start.
fn status_of(told: &Told) -> u16 {
    match told.code.as_deref() {
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
