//! Native requests to Claude, and the meaning of its errors.

use ports::ai::{AiOperation, CallContent, NativeCall, ProviderCall, ProviderFault, StreamFraming};
use serde::Deserialize;

use super::parser::AnthropicParser;
use super::request;
use crate::ai::dialect::{Awaited, DialectFormat, Outgoing, ResponseParser, malformed, passed_on};
use crate::ai::errors::{ErrorDetails, ErrorMeaning};
use crate::ai::json_patch::{self, NotAnObject};
use crate::ai::lenient;

const VERSION_HEADER: &str = "anthropic-version";

/// The gateway decides which account calls and pays.
const OWN_HEADERS: [&str; 2] = ["anthropic-organization-id", "anthropic-workspace-id"];

/// The version we send when the caller names none.
const VERSION: &str = "2023-06-01";

/// Claude reports that a workspace has reached its cap with status 400 and one of these phrases in the message.
const SPENT: [&str; 3] = ["credit balance is too low", "specified API usage limits", "organization has been disabled"];

pub(in crate::ai) struct Anthropic;

impl DialectFormat for Anthropic {
    fn outgoing(&self, call: &ProviderCall) -> Result<Outgoing, ProviderFault> {
        let (operation, body, mut headers) = match &call.content {
            CallContent::Native(native) => (
                native.operation,
                native_body(native, call)?,
                passed_on(&native.headers, &["anthropic-"], &OWN_HEADERS),
            ),
            CallContent::Conversation(conversation) => {
                (AiOperation::Chat, request::written(conversation, call)?, Vec::new())
            }
        };
        if !headers.iter().any(|(name, _)| name == VERSION_HEADER) {
            headers.push((VERSION_HEADER.to_owned(), VERSION.to_owned()));
        }
        let mut path = vec!["v1".to_owned(), "messages".to_owned()];
        match operation {
            AiOperation::Chat => {}
            AiOperation::CountTokens => path.push("count_tokens".to_owned()),
            AiOperation::Embeddings => return Err(malformed("Anthropic has no embeddings")),
        }
        let awaited = if call.streamed && operation == AiOperation::Chat {
            Awaited::Stream(StreamFraming::ServerSentEvents)
        } else {
            Awaited::Whole
        };
        Ok(Outgoing { path, query: None, headers, body, awaited })
    }

    fn parser(&self, call: &ProviderCall) -> Box<dyn ResponseParser> {
        let operation = match &call.content {
            CallContent::Native(native) => native.operation,
            CallContent::Conversation(_) => AiOperation::Chat,
        };
        Box::new(AnthropicParser::new(operation))
    }

    fn error_details(&self, _: u16, body: &[u8]) -> ErrorDetails {
        error_details(body)
    }

    fn request_id_header(&self) -> Option<&'static str> {
        Some("request-id")
    }
}

fn native_body(native: &NativeCall, call: &ProviderCall) -> Result<String, NotAnObject> {
    let model = serde_json::Value::from(call.model.as_str()).to_string();
    let mut body = json_patch::with(&native.body, "model", &model)?;
    // A token count takes neither an output limit nor a stream flag.
    if native.operation != AiOperation::Chat {
        return Ok(body);
    }
    if let Some(bound) = call.max_output_tokens {
        body = json_patch::with(&body, "max_tokens", &bound.to_string())?;
    }
    let streams = json_patch::value(&body, "stream")? == Some("true");
    if streams != call.streamed {
        body = json_patch::with(&body, "stream", if call.streamed { "true" } else { "false" })?;
    }
    Ok(body)
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorObject,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorObject {
    #[serde(rename = "type", deserialize_with = "lenient::text")]
    kind: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    message: Option<String>,
    #[serde(deserialize_with = "lenient::field")]
    details: Option<Details>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Details {
    error_code: Option<String>,
}

pub(super) fn error_details(body: &[u8]) -> ErrorDetails {
    let Ok(ErrorBody { error }) = serde_json::from_slice(body) else { return ErrorDetails::default() };
    let code = error.details.and_then(|details| details.error_code);
    let is_spent = error.kind.as_deref() == Some("billing_error")
        || code.as_deref().is_some_and(|code| code.contains("spend_limit"))
        || error.message.as_deref().is_some_and(|message| SPENT.iter().any(|words| message.contains(words)));
    ErrorDetails {
        message: error.message,
        code: code.or(error.kind),
        means: if is_spent { ErrorMeaning::SpendLimit } else { ErrorMeaning::WhatTheStatusSays },
        retry_after: None,
    }
}

#[cfg(test)]
mod tests {
    use domain::ai::{ModelId, ProviderProfile};

    use super::*;

    fn body(operation: AiOperation, body: &str, streamed: bool, max_output_tokens: Option<u64>) -> String {
        let native = NativeCall {
            operation,
            body: body.to_owned(),
            headers: Vec::new(),
            framing: StreamFraming::ServerSentEvents,
        };
        let call = ProviderCall {
            provider: ProviderProfile::CLAUDE,
            model: ModelId::parse("claude").unwrap(),
            content: CallContent::Native(native.clone()),
            streamed,
            max_output_tokens,
        };
        native_body(&native, &call).unwrap()
    }

    #[test]
    fn a_body_is_changed_only_where_the_call_differs() {
        let odd = "{ \"max_tokens\": 10, \"model\":\"claude\" ,\n\"messages\": [ {\"model\":\"z\"} ]}";
        assert_eq!(body(AiOperation::Chat, odd, false, None), odd);
        assert_eq!(body(AiOperation::Chat, odd, false, Some(3)), odd.replace("10", "3"));
        let count = r#"{"model":"alias","messages":[]}"#;
        assert_eq!(body(AiOperation::CountTokens, count, false, Some(3)), r#"{"model":"claude","messages":[]}"#);
        assert_eq!(
            body(AiOperation::Chat, r#"{"model":"claude","stream":false}"#, true, None),
            r#"{"model":"claude","stream":true}"#
        );
    }

    #[test]
    fn a_spent_account_is_told_by_type_code_or_words() {
        for (error, code) in [
            (r#""type":"billing_error","message":"m""#, "billing_error"),
            (
                r#""type":"rate_limit_error","message":"m","details":{"error_code":"enforced_spend_limit_reached"}"#,
                "enforced_spend_limit_reached",
            ),
            (
                r#""type":"invalid_request_error","message":"Your credit balance is too low to access it.""#,
                "invalid_request_error",
            ),
        ] {
            let details = error_details(format!(r#"{{"type":"error","error":{{{error}}}}}"#).as_bytes());
            assert_eq!((details.means, details.code.as_deref()), (ErrorMeaning::SpendLimit, Some(code)));
        }
        let fast =
            error_details(br#"{"type":"error","error":{"type":"rate_limit_error","message":"m","details":null}}"#);
        assert_eq!((fast.means, fast.message.as_deref()), (ErrorMeaning::WhatTheStatusSays, Some("m")));
        assert_eq!(error_details(b""), ErrorDetails::default());
    }
}
