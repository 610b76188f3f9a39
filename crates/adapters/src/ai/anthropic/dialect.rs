//! How Claude is asked natively, and how it says no.

use ports::ai::{CallContent, Framing, NativeCall, Operation, ProviderCall, ProviderFault};
use serde::Deserialize;

use super::request;
use super::speech::AnthropicSpeech;
use crate::ai::dialect::{Awaited, Dialect, Outgoing, Speech, malformed, passed_on};
use crate::ai::faults::{Means, Told};
use crate::ai::lenient;
use crate::ai::members::{self, NotAnObject};

const VERSION_HEADER: &str = "anthropic-version";

/// Who calls and who pays is ours to say.
const OWN_HEADERS: [&str; 2] = ["anthropic-organization-id", "anthropic-workspace-id"];

/// What we speak where the caller names no version.
const VERSION: &str = "2023-06-01";

/// A workspace that has reached its cap is told in prose, with 400.
const SPENT: [&str; 2] = ["credit balance is too low", "specified API usage limits"];

pub(in crate::ai) struct Anthropic;

impl Dialect for Anthropic {
    fn outgoing(&self, call: &ProviderCall) -> Result<Outgoing, ProviderFault> {
        let (operation, body, mut headers) = match &call.content {
            CallContent::Native(native) => (
                native.operation,
                native_body(native, call)?,
                passed_on(&native.headers, &["anthropic-"], &OWN_HEADERS),
            ),
            CallContent::Conversation(conversation) => {
                (Operation::Chat, request::written(conversation, call)?, Vec::new())
            }
        };
        if !headers.iter().any(|(name, _)| name == VERSION_HEADER) {
            headers.push((VERSION_HEADER.to_owned(), VERSION.to_owned()));
        }
        let mut path = vec!["v1".to_owned(), "messages".to_owned()];
        match operation {
            Operation::Chat => {}
            Operation::CountTokens => path.push("count_tokens".to_owned()),
            Operation::Embeddings => return Err(malformed("Anthropic has no embeddings")),
        }
        let awaited = if call.streamed && operation == Operation::Chat {
            Awaited::Stream(Framing::ServerSentEvents)
        } else {
            Awaited::Whole
        };
        Ok(Outgoing { path, query: None, headers, body, awaited })
    }

    fn speech(&self, call: &ProviderCall) -> Box<dyn Speech> {
        let operation = match &call.content {
            CallContent::Native(native) => native.operation,
            CallContent::Conversation(_) => Operation::Chat,
        };
        Box::new(AnthropicSpeech::new(operation))
    }

    fn told(&self, _: u16, body: &[u8]) -> Told {
        told(body)
    }

    fn credential(&self) -> (&'static str, &'static str) {
        ("x-api-key", "")
    }

    fn request_id_header(&self) -> Option<&'static str> {
        Some("request-id")
    }
}

fn native_body(native: &NativeCall, call: &ProviderCall) -> Result<String, NotAnObject> {
    let model = serde_json::Value::from(call.model.as_str()).to_string();
    let mut body = members::with(&native.body, "model", &model)?;
    // Counting knows neither a bound nor a stream.
    if native.operation != Operation::Chat {
        return Ok(body);
    }
    if let Some(bound) = call.max_output_tokens {
        body = members::with(&body, "max_tokens", &bound.to_string())?;
    }
    let streams = members::value(&body, "stream")? == Some("true");
    if streams != call.streamed {
        body = members::with(&body, "stream", if call.streamed { "true" } else { "false" })?;
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

pub(super) fn told(body: &[u8]) -> Told {
    let Ok(ErrorBody { error }) = serde_json::from_slice(body) else { return Told::default() };
    let code = error.details.and_then(|details| details.error_code);
    let is_spent = error.kind.as_deref() == Some("billing_error")
        || code.as_deref().is_some_and(|code| code.contains("spend_limit"))
        || error.message.as_deref().is_some_and(|message| SPENT.iter().any(|words| message.contains(words)));
    Told {
        message: error.message,
        code: code.or(error.kind),
        means: if is_spent { Means::SpendLimit } else { Means::WhatTheStatusSays },
        retry_after: None,
    }
}

#[cfg(test)]
mod tests {
    use domain::ai::{ModelId, Provider};

    use super::*;

    fn body(operation: Operation, body: &str, streamed: bool, max_output_tokens: Option<u64>) -> String {
        let native =
            NativeCall { operation, body: body.to_owned(), headers: Vec::new(), framing: Framing::ServerSentEvents };
        let call = ProviderCall {
            provider: Provider::Claude,
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
        assert_eq!(body(Operation::Chat, odd, false, None), odd);
        assert_eq!(body(Operation::Chat, odd, false, Some(3)), odd.replace("10", "3"));
        let count = r#"{"model":"alias","messages":[]}"#;
        assert_eq!(body(Operation::CountTokens, count, false, Some(3)), r#"{"model":"claude","messages":[]}"#);
        assert_eq!(
            body(Operation::Chat, r#"{"model":"claude","stream":false}"#, true, None),
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
            let told = told(format!(r#"{{"type":"error","error":{{{error}}}}}"#).as_bytes());
            assert_eq!((told.means, told.code.as_deref()), (Means::SpendLimit, Some(code)));
        }
        let fast = told(br#"{"type":"error","error":{"type":"rate_limit_error","message":"m","details":null}}"#);
        assert_eq!((fast.means, fast.message.as_deref()), (Means::WhatTheStatusSays, Some("m")));
        assert_eq!(told(b""), Told::default());
    }
}
