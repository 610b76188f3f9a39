//! What a chat completion says, whole or in chunks: a chunk's `delta` has the shape of a whole one's `message`.

use domain::ai::{Delta, FinishReason, OpenAiUsage, ReportedUsage};
use ports::ai::Operation;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::dialect::told;
use crate::ai::dialect::{End, Heard, Misheard, Shown, Speech, usage};
use crate::ai::faults::{Means, Told};
use crate::ai::members;
use crate::ai::streaming::error_within;

pub(super) struct OpenAiSpeech {
    operation: Operation,
    /// Whether the usage was asked for by us alone.
    hides_usage: bool,
    /// The tool calls so far, by choice and by their index in it, and whether arguments came.
    calls: Vec<(u64, u64, bool)>,
    tier: Option<String>,
}

#[derive(Deserialize)]
struct Chunk<'a> {
    id: Option<String>,
    model: Option<String>,
    #[serde(default)]
    choices: Option<Vec<Choice>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    service_tier: Option<String>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u64,
    #[serde(alias = "message")]
    delta: Option<Message>,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Message {
    content: Option<String>,
    refusal: Option<String>,
    /// Servers that speak this dialect show thoughts so.
    #[serde(alias = "reasoning")]
    reasoning_content: Option<String>,
    tool_calls: Option<Vec<Call>>,
    function_call: Option<Function>,
}

#[derive(Deserialize)]
struct Call {
    /// A whole message does not number its calls.
    index: Option<u64>,
    id: Option<String>,
    function: Option<Function>,
    custom: Option<Function>,
}

#[derive(Deserialize)]
struct Function {
    name: Option<String>,
    #[serde(alias = "input")]
    arguments: Option<String>,
}

impl OpenAiSpeech {
    pub(super) const fn new(operation: Operation, hides_usage: bool) -> Self {
        Self { operation, hides_usage, calls: Vec::new(), tier: None }
    }

    fn message(&mut self, index: u64, message: Message, deltas: &mut Vec<Delta>) {
        let text = |text: Option<String>| text.filter(|text| !text.is_empty());
        deltas.extend(text(message.reasoning_content).map(Delta::Thinking));
        deltas.extend(text(message.content).map(Delta::Text));
        // What the model says instead of an answer is an answer to whoever reads it.
        deltas.extend(text(message.refusal).map(Delta::Text));
        for (place, call) in message.tool_calls.unwrap_or_default().into_iter().enumerate() {
            let place = call.index.unwrap_or_else(|| u64::try_from(place).unwrap_or(u64::MAX));
            self.call(index, place, call.id, call.function.or(call.custom), deltas);
        }
        if let Some(function) = message.function_call {
            self.call(index, 0, None, Some(function), deltas);
        }
    }

    fn call(
        &mut self,
        choice: u64,
        place: u64,
        id: Option<String>,
        function: Option<Function>,
        deltas: &mut Vec<Delta>,
    ) {
        let known = self.calls.iter().position(|(of, at, _)| (*of, *at) == (choice, place));
        let number = known.unwrap_or(self.calls.len());
        let index = u32::try_from(number).unwrap_or(u32::MAX);
        let (name, arguments) = function.map_or((None, None), |function| (function.name, function.arguments));
        if known.is_none() {
            self.calls.push((choice, place, false));
            let id = id.unwrap_or_else(|| format!("call_{index}"));
            deltas.push(Delta::ToolCallBegun { index, id, name: name.unwrap_or_default() });
        }
        if let Some(json) = arguments.filter(|json| !json.is_empty()) {
            if let Some((_, _, has_arguments)) = self.calls.get_mut(number) {
                *has_arguments = true;
            }
            deltas.push(Delta::ToolArguments { index, json });
        }
    }

    /// A call without arguments has an empty object of them.
    fn complete_calls(&mut self, choice: u64, deltas: &mut Vec<Delta>) {
        for (number, (of, _, has_arguments)) in self.calls.iter_mut().enumerate() {
            if *of == choice && !*has_arguments {
                *has_arguments = true;
                let index = u32::try_from(number).unwrap_or(u32::MAX);
                deltas.push(Delta::ToolArguments { index, json: "{}".to_owned() });
            }
        }
    }
}

impl Speech for OpenAiSpeech {
    fn hear(&mut self, data: &[u8]) -> Result<Heard, Misheard> {
        if data.trim_ascii() == b"[DONE]" {
            return Ok(Heard { end: End::Last, ..Heard::default() });
        }
        let chunk: Chunk<'_> =
            serde_json::from_slice(data).map_err(|_| Misheard::Nonsense("a frame of it is not a chat completion's"))?;
        if chunk.error.is_some_and(|error| error.get() != "null") {
            let told = told(data);
            return Err(error_within(status_of(&told), told, data));
        }
        if self.operation == Operation::Chat && chunk.choices.is_none() {
            return Err(Misheard::Nonsense("it is no chat completion"));
        }
        let shown = if self.hides_usage { shown(&chunk, data)? } else { Shown::AsItCame };
        self.tier = chunk.service_tier.or(self.tier.take());
        let reported = usage::<OpenAiUsage>(chunk.usage).map(|usage| ReportedUsage::OpenAi(usage, self.tier.clone()));
        let mut deltas = Vec::new();
        for choice in chunk.choices.unwrap_or_default() {
            if let Some(message) = choice.delta {
                self.message(choice.index, message, &mut deltas);
            }
            if let Some(reason) = choice.finish_reason {
                self.complete_calls(choice.index, &mut deltas);
                // Of several answers the first one speaks for all.
                deltas.extend((choice.index == 0).then(|| Delta::Finished(finish(&reason))));
            }
        }
        Ok(Heard { deltas, usage: reported, request_id: chunk.id, model: chunk.model, shown, ..Heard::default() })
    }
}

/// The chunk without its usage; one that has only that is not shown.
fn shown(chunk: &Chunk<'_>, data: &[u8]) -> Result<Shown, Misheard> {
    let tells = chunk.usage.is_some_and(|usage| usage.get() != "null");
    if tells && chunk.choices.as_ref().is_some_and(Vec::is_empty) {
        return Ok(Shown::Nothing);
    }
    let text = std::str::from_utf8(data).map_err(|_| Misheard::Nonsense("a frame of it is not UTF-8"))?;
    match members::without(text, "usage") {
        Ok(Some(rest)) => Ok(Shown::Data(rest)),
        Ok(None) => Ok(Shown::AsItCame),
        Err(_) => Err(Misheard::Nonsense("a frame of it is no JSON object")),
    }
}

/// The status under which the error would have come at the start.
fn status_of(told: &Told) -> u16 {
    match told.code.as_deref() {
        _ if told.means == Means::SpendLimit => 429,
        Some("rate_limit_exceeded" | "requests" | "tokens") => 429,
        Some("invalid_request_error") => 400,
        _ => 500,
    }
}

fn finish(reason: &str) -> FinishReason {
    match reason {
        "length" => FinishReason::Length,
        "tool_calls" | "function_call" => FinishReason::ToolCalls,
        "content_filter" => FinishReason::Filtered,
        _ => FinishReason::Stop,
    }
}
