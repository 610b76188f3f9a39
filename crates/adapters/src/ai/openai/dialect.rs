//! Native requests to `OpenAI`, and the meaning of its errors.

use domain::ai::ModelId;
use ports::ai::{AiOperation, CallContent, NativeCall, ProviderCall, ProviderFault, StreamFraming};
use serde::Deserialize;

use super::parser::OpenAiParser;
use super::request;
use crate::ai::dialect::{Awaited, DialectFormat, Outgoing, ResponseParser, passed_on};
use crate::ai::errors::{ErrorDetails, ErrorMeaning};
use crate::ai::json_patch::{self, NotAnObject};
use crate::ai::lenient;

/// The gateway decides which account calls and pays.
const OWN_HEADERS: [&str; 2] = ["openai-organization", "openai-project"];

/// Error codes for an account that has reached a spend limit. OpenAI sends them with status 429.
const SPEND_LIMITS: [&str; 6] = [
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "billing_hard_limit_reached",
    "billing_not_active",
];

pub(in crate::ai) struct OpenAi;

impl DialectFormat for OpenAi {
    fn outgoing(&self, call: &ProviderCall) -> Result<Outgoing, ProviderFault> {
        let (operation, body, headers) = match &call.content {
            CallContent::Native(native) => {
                let headers = passed_on(&native.headers, &["openai-"], &OWN_HEADERS);
                (native.operation, native_body(native, call)?, headers)
            }
            CallContent::Conversation(conversation) => {
                (AiOperation::Chat, request::written(conversation, call)?, Vec::new())
            }
        };
        let path = match operation {
            AiOperation::Chat => vec!["chat".to_owned(), "completions".to_owned()],
            AiOperation::Embeddings => vec!["embeddings".to_owned()],
            AiOperation::CountTokens => {
                return Err(crate::ai::dialect::malformed("OpenAI does not count tokens for a caller"));
            }
        };
        let awaited = if call.streamed && operation == AiOperation::Chat {
            Awaited::Stream(StreamFraming::ServerSentEvents)
        } else {
            Awaited::Whole
        };
        Ok(Outgoing { path, query: None, headers, body, awaited })
    }

    fn parser(&self, call: &ProviderCall) -> Box<dyn ResponseParser> {
        let (operation, hides_usage) = match &call.content {
            CallContent::Native(native) => (native.operation, call.streamed && !asks_for_usage(&native.body)),
            CallContent::Conversation(_) => (AiOperation::Chat, false),
        };
        Box::new(OpenAiParser::new(operation, hides_usage))
    }

    fn error_details(&self, _: u16, body: &[u8]) -> ErrorDetails {
        error_details(body)
    }

    fn request_id_header(&self) -> Option<&'static str> {
        Some("x-request-id")
    }
}

/// The caller's body with the values that the call sets. A stream asks for its usage, if the server can be asked.
fn native_body(native: &NativeCall, call: &ProviderCall) -> Result<String, NotAnObject> {
    let mut body = json_patch::with(&native.body, "model", &quoted(&call.model))?;
    if native.operation != AiOperation::Chat {
        return Ok(body);
    }
    if let Some(bound) = call.max_output_tokens {
        body = bounded(&body, &bound.to_string(), call.provider.missing.max_completion_tokens)?;
    }
    let streams = json_patch::value(&body, "stream")? == Some("true");
    if streams != call.streamed {
        body = json_patch::with(&body, "stream", if call.streamed { "true" } else { "false" })?;
    }
    if call.streamed && !call.provider.missing.stream_options && !asks_for_usage(&body) {
        let options = json_patch::value(&body, "stream_options")?.unwrap_or("{}");
        // Options that are no object are sent unchanged: OpenAI reports the error.
        if let Ok(options) = json_patch::with(options, "include_usage", "true") {
            body = json_patch::with(&body, "stream_options", &options)?;
        }
    }
    Ok(body)
}

/// Set under the name that the caller used: older models know only the old name, newer ones only the new. `knows_old`
/// says that the server knows only the old one.
fn bounded(body: &str, bound: &str, knows_old: bool) -> Result<String, NotAnObject> {
    let old = json_patch::value(body, "max_tokens")?.is_some() || knows_old;
    let new = json_patch::value(body, "max_completion_tokens")?.is_some();
    let body = if old { json_patch::with(body, "max_tokens", bound)? } else { body.to_owned() };
    if new || !old { json_patch::with(&body, "max_completion_tokens", bound) } else { Ok(body) }
}

fn asks_for_usage(body: &str) -> bool {
    let options = json_patch::value(body, "stream_options").ok().flatten();
    options.is_some_and(|options| json_patch::value(options, "include_usage") == Ok(Some("true")))
}

fn quoted(model: &ModelId) -> String {
    serde_json::Value::from(model.as_str()).to_string()
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorObject,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorObject {
    #[serde(deserialize_with = "lenient::text")]
    message: Option<String>,
    #[serde(rename = "type", deserialize_with = "lenient::text")]
    kind: Option<String>,
    /// Text; some compatible servers send a number.
    code: Option<serde_json::Value>,
}

pub(super) fn error_details(body: &[u8]) -> ErrorDetails {
    let Ok(ErrorBody { error }) = serde_json::from_slice(body) else { return ErrorDetails::default() };
    let code = error.code.and_then(|code| code.as_str().map(str::to_owned));
    let is_spent = error.kind.as_deref() == Some("insufficient_quota")
        || code.as_deref().is_some_and(|code| code == "insufficient_quota" || SPEND_LIMITS.contains(&code));
    ErrorDetails {
        message: error.message,
        code: code.or(error.kind),
        means: if is_spent { ErrorMeaning::SpendLimit } else { ErrorMeaning::WhatTheStatusSays },
        retry_after: None,
    }
}

/// The status that an error within a reply names as its code. `OpenAI` names none, some compatible servers do.
pub(super) fn status_in_error(body: &[u8]) -> Option<u16> {
    let ErrorBody { error } = serde_json::from_slice(body).ok()?;
    let status = match error.code? {
        serde_json::Value::Number(code) => u16::try_from(code.as_u64()?).ok()?,
        code => code.as_str()?.parse().ok()?,
    };
    (400..=599).contains(&status).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(body: &str, streamed: bool, max_output_tokens: Option<u64>) -> String {
        let native = NativeCall {
            operation: AiOperation::Chat,
            body: body.to_owned(),
            headers: Vec::new(),
            framing: StreamFraming::ServerSentEvents,
        };
        let call = ProviderCall {
            provider: domain::ai::ProviderProfile::OPENAI,
            model: ModelId::parse("gpt").unwrap(),
            content: CallContent::Native(native.clone()),
            streamed,
            max_output_tokens,
        };
        native_body(&native, &call).unwrap()
    }

    #[test]
    fn a_body_is_changed_only_where_the_call_differs() {
        let odd = "{ \"x\": 1.0, \"model\":\"gpt\" ,\n\"messages\": [ {\"model\":\"z\"} ]}";
        assert_eq!(body(odd, false, None), odd);
        assert_eq!(body(r#"{"model":"alias","a":[]}"#, false, None), r#"{"model":"gpt","a":[]}"#);
        let streams = r#"{"model":"gpt","stream":true,"stream_options":{"include_usage":true}}"#;
        assert_eq!(body(streams, true, None), streams);
    }

    #[test]
    fn the_bound_goes_under_the_name_that_was_used() {
        for (before, after) in [
            (r#"{"model":"gpt"}"#, r#"{"model":"gpt","max_completion_tokens":9}"#),
            (r#"{"model":"gpt","max_tokens":100}"#, r#"{"model":"gpt","max_tokens":9}"#),
            (r#"{"max_completion_tokens":5,"model":"gpt"}"#, r#"{"max_completion_tokens":9,"model":"gpt"}"#),
            (r#"{"max_tokens":null,"model":"gpt"}"#, r#"{"max_tokens":null,"model":"gpt","max_completion_tokens":9}"#),
            (
                r#"{"max_tokens":1,"max_completion_tokens":2,"model":"gpt"}"#,
                r#"{"max_tokens":9,"max_completion_tokens":9,"model":"gpt"}"#,
            ),
        ] {
            assert_eq!(body(before, false, Some(9)), after);
        }
    }

    #[test]
    fn a_stream_tells_its_usage() {
        for (before, after) in [
            (r#"{"model":"gpt"}"#, r#"{"model":"gpt","stream":true,"stream_options":{"include_usage":true}}"#),
            (
                r#"{"model":"gpt","stream_options":{"include_obfuscation":false, "include_usage":false},"stream":true}"#,
                r#"{"model":"gpt","stream_options":{"include_obfuscation":false, "include_usage":true},"stream":true}"#,
            ),
            (
                r#"{"model":"gpt","stream":true,"stream_options":null}"#,
                r#"{"model":"gpt","stream":true,"stream_options":{"include_usage":true}}"#,
            ),
        ] {
            assert_eq!(body(before, true, None), after);
        }
    }

    #[test]
    fn a_spent_account_is_told_by_its_code() {
        for code in SPEND_LIMITS {
            let body = format!(r#"{{"error":{{"message":"m","type":"x","param":null,"code":"{code}"}}}}"#);
            let expected = ErrorDetails {
                message: Some("m".into()),
                code: Some(code.into()),
                means: ErrorMeaning::SpendLimit,
                retry_after: None,
            };
            assert_eq!(error_details(body.as_bytes()), expected);
        }
        let fast = error_details(br#"{"error":{"message":"m","type":"requests","code":429}}"#);
        assert_eq!((fast.code.as_deref(), fast.means), (Some("requests"), ErrorMeaning::WhatTheStatusSays));
        assert_eq!(error_details(b"<html>"), ErrorDetails::default());
    }
}
