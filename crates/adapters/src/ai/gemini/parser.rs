//! Parses Gemini's responses: whole ones and stream chunks have the same shape.
//!
//! Lenient: a field of an unexpected kind counts as absent, and a part without any known field is billed by all its
//! text.

use domain::ai::{AnswerDelta, FinishReason, GeminiUsage, ReportedUsage};
use ports::ai::AiOperation;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::dialect::error_details;
use crate::ai::dialect::{End, ParseError, Parsed, ResponseParser, usage};
use crate::ai::lenient;
use crate::ai::streaming::error_within;

pub(super) struct GeminiParser {
    operation: AiOperation,
    /// The number of tool calls so far. Gemini does not number its calls.
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
    /// A picture or sound. The usage reports its tokens.
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

/// Code that the model ran itself, or its output.
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

impl GeminiParser {
    pub(super) const fn new(operation: AiOperation) -> Self {
        Self { operation, calls: 0, response_id: None }
    }

    fn part(&mut self, raw: &RawValue, parsed: &mut Parsed) {
        let part: Part<'_> = lenient::read(Some(raw)).unwrap_or_default();
        if !part.is_known() {
            parsed.add_unread(&lenient::output_within(raw.get().as_bytes()));
        }
        if let Some(media) = part.inline_data {
            parsed.add_output(&lenient::output_beside(media, &["mimeType", "displayName"]));
        }
        let is_thought = part.thought == Some(true);
        let text = part.text.filter(|text| !text.is_empty());
        if text.is_none()
            && let Some(signature) = part.thought_signature.and_then(lenient::text_of)
        {
            parsed.hidden_tokens = parsed.hidden_tokens.saturating_add(lenient::encrypted_tokens(signature.len()));
        }
        let deltas = &mut parsed.deltas;
        deltas.extend(text.map(|text| if is_thought { AnswerDelta::Thinking(text) } else { AnswerDelta::Text(text) }));
        for code in [part.executable_code, part.code_execution_result].into_iter().filter_map(lenient::read::<Code>) {
            deltas.extend(code.code.or(code.output).map(AnswerDelta::Thinking));
        }
        if let Some(call) = lenient::read::<FunctionCall<'_>>(part.function_call) {
            let index = self.calls;
            self.calls += 1;
            let id = call.id.filter(|id| !id.is_empty()).unwrap_or_else(|| self.id_of_call(index));
            deltas.push(AnswerDelta::ToolCallBegun { index, id, name: call.name.unwrap_or_default() });
            let json = call.args.map_or("{}", RawValue::get).to_owned();
            deltas.push(AnswerDelta::ToolArguments { index, json });
        }
    }

    /// Stable for one reply and distinct between replies: a history contains calls of many. Letters and digits only,
    /// since it goes to other providers with the conversation.
    fn id_of_call(&self, index: u32) -> String {
        let reply: String =
            self.response_id.iter().flat_map(|id| id.chars()).filter(char::is_ascii_alphanumeric).collect();
        let reply = reply.get(..reply.len().min(24)).unwrap_or_default();
        if reply.is_empty() { format!("call_{index}") } else { format!("call_{reply}_{index}") }
    }
}

impl GeminiParser {
    fn response(&mut self, response: Response<'_>, data: &[u8]) -> Result<Parsed, ParseError> {
        let usage = usage::<GeminiUsage>(response.usage_metadata).map(ReportedUsage::Gemini);
        if lenient::is_error(response.error) {
            let (details, status) = error_details(data);
            return Err(error_within(status.unwrap_or(500), details, usage, data));
        }
        let feedback: Option<Feedback> = lenient::read(response.prompt_feedback);
        let is_blocked = feedback.is_some_and(|feedback| feedback.block_reason.is_some());
        let tells_nothing = response.candidates.is_none() && !is_blocked && usage.is_none();
        self.response_id = self.response_id.take().or_else(|| response.response_id.clone());
        let mut parsed = Parsed { usage, ..Parsed::default() };
        if self.operation == AiOperation::Chat && tells_nothing {
            parsed = Parsed::unread(lenient::output_within(data));
        }
        let mut reason = is_blocked.then_some(FinishReason::Filtered);
        for candidate in lenient::items::<Candidate<'_>>(response.candidates) {
            let content: Option<Content<'_>> = lenient::read(candidate.content);
            for part in lenient::items::<&RawValue>(content.and_then(|content| content.parts)) {
                self.part(part, &mut parsed);
            }
            // With several candidates, the first one's finish reason counts.
            let ends = candidate.finish_reason.filter(|_| candidate.index.unwrap_or_default() == 0);
            reason = reason.or(ends.map(|reason| finish(&reason, self.calls > 0)));
        }
        let end = if reason.is_some() { End::Finished } else { End::GoesOn };
        parsed.deltas.extend(reason.map(AnswerDelta::Finished));
        Ok(Parsed { request_id: response.response_id, model: response.model_version, end, ..parsed })
    }
}

impl ResponseParser for GeminiParser {
    fn parse(&mut self, data: &[u8]) -> Result<Parsed, ParseError> {
        let parsed = lenient::object(data, |text| Some(self.response(serde_json::from_slice(text).ok()?, data)));
        // An error may come alone in an array.
        parsed.unwrap_or_else(|| {
            Err(match error_details(data) {
                (details, Some(status)) => error_within(status, details, None, data),
                (_, None) => ParseError::Nonsense("a frame of it is no JSON object"),
            })
        })
    }
}

/// Gemini has no finish reason of its own for tool calls.
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
