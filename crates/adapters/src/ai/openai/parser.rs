//! Parses chat completions: a chunk's `delta` has the shape of a whole completion's `message`.
//!
//! Lenient: a field of an unexpected kind counts as absent, and a choice without any known field is billed by all its
//! text.

use domain::ai::{AnswerDelta, FinishReason, OpenAiUsage, ReportedUsage};
use ports::ai::AiOperation;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::dialect::{error_details, status_in_error};
use crate::ai::dialect::{End, ParseError, Parsed, Passthrough, ResponseParser, usage};
use crate::ai::errors::{ErrorDetails, ErrorMeaning};
use crate::ai::json_patch;
use crate::ai::lenient::{self, Output};
use crate::ai::streaming::error_within;

/// The members of a choice that are read, or that hold no output.
const CHOICE_MEMBERS: [&str; 6] = ["index", "delta", "message", "finish_reason", "native_finish_reason", "logprobs"];

/// The same of a message. The details of its thoughts repeat the thoughts, where it has both.
const MESSAGE_MEMBERS: [&str; 9] = [
    "role",
    "content",
    "refusal",
    "reasoning_content",
    "reasoning",
    "tool_calls",
    "function_call",
    "annotations",
    "reasoning_details",
];

pub(super) struct OpenAiParser {
    operation: AiOperation,
    /// Whether only the gateway asked for the usage.
    hides_usage: bool,
    /// The tool calls so far: the choice, the index in it, and whether arguments came.
    calls: Vec<(u64, u64, bool)>,
    tier: Option<String>,
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(default, deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    model: Option<String>,
    #[serde(default, borrow)]
    choices: Option<&'a RawValue>,
    #[serde(default, borrow)]
    usage: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "lenient::text")]
    service_tier: Option<String>,
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default, deserialize_with = "lenient::whole")]
    index: Option<u64>,
    #[serde(default, borrow)]
    delta: Option<&'a RawValue>,
    #[serde(default, borrow)]
    message: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "lenient::text")]
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Message<'a> {
    #[serde(deserialize_with = "lenient::text")]
    role: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    content: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    refusal: Option<String>,
    /// Compatible servers send reasoning under one of two names, some under both.
    #[serde(deserialize_with = "lenient::text")]
    reasoning_content: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    reasoning: Option<String>,
    #[serde(borrow)]
    tool_calls: Option<&'a RawValue>,
    #[serde(borrow)]
    function_call: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Call<'a> {
    /// A whole message does not number its calls.
    #[serde(default, deserialize_with = "lenient::whole")]
    index: Option<u64>,
    #[serde(default, deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(default, borrow)]
    function: Option<&'a RawValue>,
    #[serde(default, borrow)]
    custom: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(default, deserialize_with = "lenient::text")]
    name: Option<String>,
    #[serde(default, borrow)]
    arguments: Option<&'a RawValue>,
    #[serde(default, borrow)]
    input: Option<&'a RawValue>,
}

impl OpenAiParser {
    pub(super) const fn new(operation: AiOperation, hides_usage: bool) -> Self {
        Self { operation, hides_usage, calls: Vec::new(), tier: None }
    }

    fn message(&mut self, index: u64, message: Message<'_>, deltas: &mut Vec<AnswerDelta>) {
        let text = |text: Option<String>| text.filter(|text| !text.is_empty());
        let thoughts = text(message.reasoning_content).or_else(|| text(message.reasoning));
        deltas.extend(thoughts.map(AnswerDelta::Thinking));
        deltas.extend(text(message.content).map(AnswerDelta::Text));
        // A refusal is text that the caller reads in place of an answer.
        deltas.extend(text(message.refusal).map(AnswerDelta::Text));
        for (place, call) in lenient::items::<Call<'_>>(message.tool_calls).into_iter().enumerate() {
            let place = call.index.unwrap_or_else(|| u64::try_from(place).unwrap_or(u64::MAX));
            self.call(index, place, call.id, lenient::read(call.function.or(call.custom)), deltas);
        }
        if let Some(function) = lenient::read(message.function_call) {
            self.call(index, 0, None, Some(function), deltas);
        }
    }

    fn call(
        &mut self,
        choice: u64,
        place: u64,
        id: Option<String>,
        function: Option<Function<'_>>,
        deltas: &mut Vec<AnswerDelta>,
    ) {
        let known = self.calls.iter().position(|(of, at, _)| (*of, *at) == (choice, place));
        let number = known.unwrap_or(self.calls.len());
        let index = u32::try_from(number).unwrap_or(u32::MAX);
        let (name, arguments) = function.map_or((None, None), |function| {
            (function.name, function.arguments.or(function.input).and_then(arguments))
        });
        if known.is_none() {
            self.calls.push((choice, place, false));
            let id = id.unwrap_or_else(|| format!("call_{index}"));
            deltas.push(AnswerDelta::ToolCallBegun { index, id, name: name.unwrap_or_default() });
        }
        if let Some(json) = arguments.filter(|json| !json.is_empty()) {
            if let Some((_, _, has_arguments)) = self.calls.get_mut(number) {
                *has_arguments = true;
            }
            deltas.push(AnswerDelta::ToolArguments { index, json });
        }
    }

    /// A call without arguments gets an empty object.
    fn complete_calls(&mut self, choice: u64, deltas: &mut Vec<AnswerDelta>) {
        for (number, (of, _, has_arguments)) in self.calls.iter_mut().enumerate() {
            if *of == choice && !*has_arguments {
                *has_arguments = true;
                let index = u32::try_from(number).unwrap_or(u32::MAX);
                deltas.push(AnswerDelta::ToolArguments { index, json: "{}".to_owned() });
            }
        }
    }

    fn choice(&mut self, raw: &RawValue, parsed: &mut Parsed) {
        let Ok(choice) = serde_json::from_str::<Choice<'_>>(raw.get()) else {
            parsed.is_unread = true;
            parsed.add_output(&lenient::output_within(raw.get().as_bytes()));
            return;
        };
        let (index, before) = (choice.index.unwrap_or_default(), parsed.deltas.len());
        let said = choice.delta.filter(|delta| delta.get() != "null").or(choice.message);
        let message: Option<Message<'_>> = lenient::read(said);
        let knows_nothing = message.as_ref().is_none_or(|message| message.role.is_none() && message.content.is_none());
        let unread = match (said, message) {
            (Some(said), Some(message)) => {
                self.message(index, message, &mut parsed.deltas);
                lenient::output_beside(said, beside_known(parsed.deltas.get(before..).unwrap_or_default()))
            }
            (Some(said), None) => lenient::output_within(said.get().as_bytes()),
            (None, _) => Output::default(),
        };
        let is_unknown = parsed.deltas.len() == before && knows_nothing && choice.finish_reason.is_none();
        for output in [unread, lenient::output_beside(raw, &CHOICE_MEMBERS)] {
            if is_unknown { parsed.add_unread(&output) } else { parsed.add_output(&output) }
        }
        if let Some(reason) = choice.finish_reason {
            self.complete_calls(index, &mut parsed.deltas);
            // With several choices, the first one's finish reason counts.
            parsed.deltas.extend((index == 0).then(|| AnswerDelta::Finished(finish(&reason))));
            parsed.end = End::Complete;
        }
    }

    fn chunk(&mut self, chunk: Chunk<'_>, data: &[u8]) -> Result<Parsed, ParseError> {
        let shown = if self.hides_usage { passthrough(&chunk, data) } else { Passthrough::AsItCame };
        self.tier = chunk.service_tier.or(self.tier.take());
        let reported = usage::<OpenAiUsage>(chunk.usage).map(|usage| ReportedUsage::OpenAi(usage, self.tier.clone()));
        if lenient::is_error(chunk.error) {
            let details = error_details(data);
            return Err(error_within(status_of(&details, data), details, reported, data));
        }
        let mut parsed = Parsed { shown, ..Parsed::default() };
        if self.operation == AiOperation::Chat {
            // A chunk with neither choices nor a usage is a ping or of an unknown kind.
            if chunk.choices.is_none() && reported.is_none() {
                parsed = Parsed { shown: parsed.shown, ..Parsed::unread(lenient::output_within(data)) };
            }
            for choice in lenient::items::<&RawValue>(chunk.choices) {
                self.choice(choice, &mut parsed);
            }
        }
        Ok(Parsed { usage: reported, request_id: chunk.id, model: chunk.model, ..parsed })
    }
}

impl ResponseParser for OpenAiParser {
    fn parse(&mut self, data: &[u8]) -> Result<Parsed, ParseError> {
        if data.trim_ascii() == b"[DONE]" {
            return Ok(Parsed { end: End::Last, ..Parsed::default() });
        }
        let parsed = lenient::object(data, |text| Some(self.chunk(serde_json::from_slice(text).ok()?, data)));
        parsed.unwrap_or(Err(ParseError::Nonsense("a frame of it is no JSON object")))
    }
}

/// The members of a message whose output is in these deltas.
fn beside_known(deltas: &[AnswerDelta]) -> &'static [&'static str] {
    let has_thoughts = deltas.iter().any(|delta| matches!(delta, AnswerDelta::Thinking(_)));
    let known = MESSAGE_MEMBERS.len() - usize::from(!has_thoughts);
    MESSAGE_MEMBERS.get(..known).unwrap_or_default()
}

/// The arguments of a call: text with JSON in it, or with some servers the JSON itself.
fn arguments(raw: &RawValue) -> Option<String> {
    match raw.get().as_bytes().first() {
        Some(b'{') => Some(raw.get().to_owned()),
        Some(b'"') => lenient::text_of(raw),
        _ => None,
    }
}

/// The chunk without its usage. A chunk with only a usage is dropped; one that cannot be changed passes as it came.
fn passthrough(chunk: &Chunk<'_>, data: &[u8]) -> Passthrough {
    let tells = chunk.usage.is_some_and(|usage| usage.get() != "null");
    let is_empty = |choices: &RawValue| {
        choices.get() == "null"
            || lenient::read(Some(choices)).is_some_and(|choices: Vec<&RawValue>| choices.is_empty())
    };
    if tells && chunk.choices.is_none_or(is_empty) {
        return Passthrough::Nothing;
    }
    let rest = std::str::from_utf8(data).ok().and_then(|text| json_patch::without(text, "usage").ok().flatten());
    rest.map_or(Passthrough::AsItCame, Passthrough::Data)
}

/// The status that the error would have had before the stream began.
fn status_of(details: &ErrorDetails, data: &[u8]) -> u16 {
    match details.code.as_deref() {
        _ if details.means == ErrorMeaning::SpendLimit => 429,
        Some("rate_limit_exceeded" | "requests" | "tokens") => 429,
        Some("invalid_request_error") => 400,
        _ => status_in_error(data).unwrap_or(500),
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
