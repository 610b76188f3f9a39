//! What Gemini says, whole or in chunks, which have the same shape.
//!
//! Read leniently: a field of another kind than the known one counts as absent, and a part in which nothing is known is
//! weighed by all its text.

use domain::ai::{Delta, FinishReason, GeminiUsage, ReportedUsage};
use ports::ai::Operation;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::dialect::told;
use crate::ai::dialect::{End, Heard, Misheard, Speech, usage};
use crate::ai::lenient;
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
    #[serde(default, borrow)]
    candidates: Option<&'a RawValue>,
    #[serde(default, borrow)]
    prompt_feedback: Option<&'a RawValue>,
    #[serde(default, borrow)]
    usage_metadata: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "lenient::text")]
    model_version: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    response_id: Option<String>,
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate<'a> {
    #[serde(default, deserialize_with = "lenient::whole")]
    index: Option<u64>,
    #[serde(default, borrow)]
    content: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "lenient::text")]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(default, borrow)]
    parts: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Part<'a> {
    #[serde(deserialize_with = "lenient::text")]
    text: Option<String>,
    #[serde(deserialize_with = "lenient::field")]
    thought: Option<bool>,
    #[serde(borrow)]
    function_call: Option<&'a RawValue>,
    #[serde(borrow)]
    executable_code: Option<&'a RawValue>,
    #[serde(borrow)]
    code_execution_result: Option<&'a RawValue>,
    /// A picture or sound, which its tokens in the usage tell.
    #[serde(borrow)]
    inline_data: Option<&'a RawValue>,
    #[serde(borrow)]
    thought_signature: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct FunctionCall<'a> {
    #[serde(default, deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    name: Option<String>,
    #[serde(default, borrow)]
    args: Option<&'a RawValue>,
}

/// Code that the model ran itself, or what that came to.
#[derive(Deserialize)]
struct Code {
    #[serde(default, deserialize_with = "lenient::text")]
    code: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    output: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feedback {
    #[serde(default, deserialize_with = "lenient::text")]
    block_reason: Option<String>,
}

impl Part<'_> {
    fn is_known(&self) -> bool {
        let others = [self.function_call, self.executable_code, self.code_execution_result, self.inline_data];
        self.text.is_some() || self.thought_signature.is_some() || others.iter().any(Option::is_some)
    }
}

impl GeminiSpeech {
    pub(super) const fn new(operation: Operation) -> Self {
        Self { operation, calls: 0, response_id: None }
    }

    fn part(&mut self, raw: &RawValue, heard: &mut Heard) {
        let part: Part<'_> = lenient::read(Some(raw)).unwrap_or_default();
        if !part.is_known() {
            heard.add_unread(&lenient::text_within(raw.get().as_bytes()));
        }
        let deltas = &mut heard.deltas;
        let is_thought = part.thought == Some(true);
        let text = part.text.filter(|text| !text.is_empty());
        deltas.extend(text.map(|text| if is_thought { Delta::Thinking(text) } else { Delta::Text(text) }));
        for code in [part.executable_code, part.code_execution_result].into_iter().filter_map(lenient::read::<Code>) {
            deltas.extend(code.code.or(code.output).map(Delta::Thinking));
        }
        if let Some(call) = lenient::read::<FunctionCall<'_>>(part.function_call) {
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

impl GeminiSpeech {
    fn response(&mut self, response: Response<'_>, data: &[u8]) -> Result<Heard, Misheard> {
        if lenient::is_error(response.error) {
            let (told, status) = told(data);
            return Err(error_within(status.unwrap_or(500), told, data));
        }
        let feedback: Option<Feedback> = lenient::read(response.prompt_feedback);
        let is_blocked = feedback.is_some_and(|feedback| feedback.block_reason.is_some());
        let usage = usage::<GeminiUsage>(response.usage_metadata).map(ReportedUsage::Gemini);
        let tells_nothing = response.candidates.is_none() && !is_blocked && usage.is_none();
        self.response_id = self.response_id.take().or_else(|| response.response_id.clone());
        let mut heard = Heard { usage, ..Heard::default() };
        if self.operation == Operation::Chat && tells_nothing {
            heard = Heard::unread(lenient::text_within(data));
        }
        let mut reason = is_blocked.then_some(FinishReason::Filtered);
        for candidate in lenient::items::<Candidate<'_>>(response.candidates) {
            let content: Option<Content<'_>> = lenient::read(candidate.content);
            for part in lenient::items::<&RawValue>(content.and_then(|content| content.parts)) {
                self.part(part, &mut heard);
            }
            // Of several answers the first one speaks for all.
            let ends = candidate.finish_reason.filter(|_| candidate.index.unwrap_or_default() == 0);
            reason = reason.or(ends.map(|reason| finish(&reason, self.calls > 0)));
        }
        let end = if reason.is_some() { End::Finished } else { End::GoesOn };
        heard.deltas.extend(reason.map(Delta::Finished));
        Ok(Heard { request_id: response.response_id, model: response.model_version, end, ..heard })
    }
}

impl Speech for GeminiSpeech {
    fn hear(&mut self, data: &[u8]) -> Result<Heard, Misheard> {
        let heard = lenient::object(data, |text| Some(self.response(serde_json::from_slice(text).ok()?, data)));
        // An error may stand in an array, alone.
        heard.unwrap_or_else(|| {
            Err(match told(data) {
                (told, Some(status)) => error_within(status, told, data),
                (_, None) => Misheard::Nonsense("a frame of it is no JSON object"),
            })
        })
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
