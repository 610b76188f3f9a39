//! What Gemini says, whole or in chunks, which have the same shape.

use domain::ai::{Delta, FinishReason, GeminiUsage, ReportedUsage};
use ports::ai::Operation;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::dialect::told;
use crate::ai::dialect::{End, Heard, Misheard, Speech, usage};
use crate::ai::streaming::error_within;

pub(super) struct GeminiSpeech {
    operation: Operation,
    /// How many tools were called. Gemini does not number its calls.
    calls: u32,
    response_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the names are the provider's")]
struct Response<'a> {
    candidates: Option<Vec<Candidate<'a>>>,
    prompt_feedback: Option<Feedback>,
    #[serde(borrow)]
    usage_metadata: Option<&'a RawValue>,
    model_version: Option<String>,
    response_id: Option<String>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate<'a> {
    #[serde(default)]
    index: u64,
    #[serde(borrow)]
    content: Option<Content<'a>>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow)]
    parts: Option<Vec<Part<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part<'a> {
    text: Option<String>,
    thought: Option<bool>,
    #[serde(borrow)]
    function_call: Option<FunctionCall<'a>>,
    executable_code: Option<Code>,
    code_execution_result: Option<Code>,
}

#[derive(Deserialize)]
struct FunctionCall<'a> {
    id: Option<String>,
    name: Option<String>,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
}

/// Code that the model ran itself, or what that came to.
#[derive(Deserialize)]
struct Code {
    code: Option<String>,
    output: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feedback {
    block_reason: Option<String>,
}

impl GeminiSpeech {
    pub(super) const fn new(operation: Operation) -> Self {
        Self { operation, calls: 0, response_id: None }
    }

    fn part(&mut self, part: Part<'_>, deltas: &mut Vec<Delta>) {
        let is_thought = part.thought == Some(true);
        let text = part.text.filter(|text| !text.is_empty());
        deltas.extend(text.map(|text| if is_thought { Delta::Thinking(text) } else { Delta::Text(text) }));
        for code in part.executable_code.into_iter().chain(part.code_execution_result) {
            deltas.extend(code.code.or(code.output).map(Delta::Thinking));
        }
        if let Some(call) = part.function_call {
            let index = self.calls;
            self.calls += 1;
            let id = call.id.filter(|id| !id.is_empty()).unwrap_or_else(|| self.id_of_call(index));
            deltas.push(Delta::ToolCallBegun { index, id, name: call.name.unwrap_or_default() });
            let json = call.args.map_or("{}", RawValue::get).to_owned();
            deltas.push(Delta::ToolArguments { index, json });
        }
    }

    /// The same for the same reply, and another one for another reply: a history holds the calls of many. Letters and
    /// digits only, since it goes to other providers with the conversation.
    fn id_of_call(&self, index: u32) -> String {
        let reply: String =
            self.response_id.iter().flat_map(|id| id.chars()).filter(char::is_ascii_alphanumeric).collect();
        let reply = reply.get(..reply.len().min(24)).unwrap_or_default();
        if reply.is_empty() { format!("call_{index}") } else { format!("call_{reply}_{index}") }
    }
}

impl Speech for GeminiSpeech {
    fn hear(&mut self, data: &[u8]) -> Result<Heard, Misheard> {
        let Ok(response) = serde_json::from_slice::<Response<'_>>(data) else {
            // An error may stand in an array, alone.
            return Err(match told(data) {
                (told, Some(status)) => error_within(status, told, data),
                (_, None) => Misheard::Nonsense("a frame of it is no response of Gemini's"),
            });
        };
        if response.error.is_some_and(|error| error.get() != "null") {
            let (told, status) = told(data);
            return Err(error_within(status.unwrap_or(500), told, data));
        }
        let is_blocked = response.prompt_feedback.is_some_and(|feedback| feedback.block_reason.is_some());
        let usage = usage::<GeminiUsage>(response.usage_metadata).map(ReportedUsage::Gemini);
        if self.operation == Operation::Chat && response.candidates.is_none() && !is_blocked && usage.is_none() {
            return Err(Misheard::Nonsense("it is no response of Gemini's"));
        }
        self.response_id = self.response_id.take().or_else(|| response.response_id.clone());
        let mut deltas = Vec::new();
        let mut reason = is_blocked.then_some(FinishReason::Filtered);
        for candidate in response.candidates.unwrap_or_default() {
            for part in candidate.content.and_then(|content| content.parts).unwrap_or_default() {
                self.part(part, &mut deltas);
            }
            // Of several answers the first one speaks for all.
            let ends = candidate.finish_reason.filter(|_| candidate.index == 0);
            reason = reason.or(ends.map(|reason| finish(&reason, self.calls > 0)));
        }
        let end = if reason.is_some() { End::Finished } else { End::GoesOn };
        deltas.extend(reason.map(Delta::Finished));
        let (request_id, model) = (response.response_id, response.model_version);
        Ok(Heard { deltas, usage, request_id, model, end, ..Heard::default() })
    }
}

/// Gemini has no reason of its own for a call of a tool.
fn finish(reason: &str, has_calls: bool) -> FinishReason {
    match reason {
        "STOP" if has_calls => FinishReason::ToolCalls,
        "MAX_TOKENS" => FinishReason::Length,
        "SAFETY"
        | "RECITATION"
        | "LANGUAGE"
        | "BLOCKLIST"
        | "PROHIBITED_CONTENT"
        | "SPII"
        | "IMAGE_SAFETY"
        | "IMAGE_PROHIBITED_CONTENT"
        | "IMAGE_RECITATION"
        | "IMAGE_OTHER" => FinishReason::Filtered,
        _ => FinishReason::Stop,
    }
}
