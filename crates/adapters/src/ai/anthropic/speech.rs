//! What Claude says, in a whole message or in its events.
//!
//! Read leniently: a field of another kind than the known one counts as absent, and an event or a block of an unknown
//! kind is billed by all its text.

use domain::ai::{ClaudeUsage, Delta, FinishReason, ReportedUsage};
use ports::ai::Operation;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::dialect::told;
use crate::ai::dialect::{End, Heard, Misheard, Speech, usage};
use crate::ai::faults::Told;
use crate::ai::lenient;
use crate::ai::streaming::error_within;

/// Additions to a block that say nothing that is paid for as output.
const SILENT: [&str; 2] = ["signature_delta", "citations_delta"];

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
    // A whole message stands at the top itself.
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

/// A block of the content, or what is added to one.
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

    fn continued(&mut self, block: u64, raw: &RawValue) -> Heard {
        let delta: Block<'_> = lenient::read(Some(raw)).unwrap_or_default();
        if !delta.is_known() {
            return Heard::unread(lenient::text_within(raw.get().as_bytes()));
        }
        let mut deltas = said(&delta);
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
        Heard { deltas, ..Heard::default() }
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
        for (block, content) in (0..).zip(lenient::items::<Block<'_>>(event.content)) {
            deltas.extend(self.opened(block, content));
            deltas.extend(self.closed(block));
        }
        deltas.extend(event.stop_reason.as_deref().map(finish).map(Delta::Finished));
        let usage = self.counted(event.usage);
        Heard { deltas, usage, request_id: event.id, model: event.model, ..Heard::default() }
    }

    fn event(&mut self, event: Event<'_>, data: &[u8]) -> Result<Heard, Misheard> {
        if lenient::is_error(event.error) {
            let told = told(data);
            return Err(error_within(status_of(&told), told, data));
        }
        let block = event.index.unwrap_or_default();
        let of_deltas = |deltas: Vec<Delta>| Heard { deltas, ..Heard::default() };
        let unknown = || Heard::unread(lenient::text_within(data));
        Ok(match event.kind.as_deref() {
            Some("message") => self.whole(event),
            Some("message_start") => {
                let message: Message<'_> = lenient::read(event.message).unwrap_or_default();
                let usage = self.counted(message.usage);
                Heard { usage, request_id: message.id, model: message.model, ..Heard::default() }
            }
            Some("content_block_start") => {
                let block_begun: Block<'_> = lenient::read(event.content_block).unwrap_or_default();
                of_deltas(self.opened(block, block_begun))
            }
            Some("content_block_delta") => event.delta.map_or_else(unknown, |delta| self.continued(block, delta)),
            Some("content_block_stop") => of_deltas(self.closed(block)),
            Some("message_delta") => {
                let reason = lenient::read::<Block<'_>>(event.delta).and_then(|delta| delta.stop_reason);
                let end = if reason.is_some() { End::Complete } else { End::GoesOn };
                let deltas = reason.as_deref().map(finish).map(Delta::Finished).into_iter().collect();
                Heard { deltas, usage: self.counted(event.usage), end, ..Heard::default() }
            }
            Some("message_stop") => Heard { end: End::Last, ..Heard::default() },
            Some("ping") => Heard::default(),
            None if self.operation == Operation::CountTokens => Heard::default(),
            // An event of days to come, which the caller may know.
            Some(_) | None => unknown(),
        })
    }
}

impl Speech for AnthropicSpeech {
    fn hear(&mut self, data: &[u8]) -> Result<Heard, Misheard> {
        let heard = lenient::object(data, |text| Some(self.event(serde_json::from_slice(text).ok()?, data)));
        heard.unwrap_or(Err(Misheard::Nonsense("a frame of it is no JSON object")))
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
