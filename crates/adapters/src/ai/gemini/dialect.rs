//! Native requests to Gemini, and the meaning of its errors. The model is in the path, not in the body.

use ports::ai::{AiOperation, CallContent, NativeCall, ProviderCall, ProviderFault, StreamFraming};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::parser::GeminiParser;
use super::request;
use crate::ai::dialect::{Awaited, DialectFormat, Outgoing, ResponseParser, passed_on};
use crate::ai::errors::{ErrorDetails, ErrorMeaning, google_duration};
use crate::ai::json_patch::{self, NotAnObject};
use crate::ai::lenient;

/// The newer of the two versions has all that the older one has.
const VERSION: &str = "v1beta";

/// The gateway decides which account calls and pays.
const OWN_HEADERS: [&str; 2] = ["x-goog-api-key", "x-goog-user-project"];

pub(in crate::ai) struct Gemini;

impl DialectFormat for Gemini {
    fn outgoing(&self, call: &ProviderCall) -> Result<Outgoing, ProviderFault> {
        let (operation, framing, body, headers) = match &call.content {
            CallContent::Native(native) => {
                let headers = passed_on(&native.headers, &["x-goog-"], &OWN_HEADERS);
                (native.operation, native.framing, native_body(native, call)?, headers)
            }
            CallContent::Conversation(conversation) => {
                (AiOperation::Chat, StreamFraming::ServerSentEvents, request::written(conversation, call)?, Vec::new())
            }
        };
        let is_stream = call.streamed && operation == AiOperation::Chat;
        let verb = match operation {
            AiOperation::Chat if is_stream => "streamGenerateContent",
            AiOperation::Chat => "generateContent",
            AiOperation::CountTokens => "countTokens",
            AiOperation::Embeddings if is_batch(&body) => "batchEmbedContents",
            AiOperation::Embeddings => "embedContent",
        };
        let path = path(call.model.as_str(), verb);
        let query = (is_stream && framing == StreamFraming::ServerSentEvents).then_some("alt=sse");
        let awaited = if is_stream { Awaited::Stream(framing) } else { Awaited::Whole };
        Ok(Outgoing { path, query, headers, body, awaited })
    }

    fn parser(&self, call: &ProviderCall) -> Box<dyn ResponseParser> {
        let operation = match &call.content {
            CallContent::Native(native) => native.operation,
            CallContent::Conversation(_) => AiOperation::Chat,
        };
        Box::new(GeminiParser::new(operation))
    }

    fn error_details(&self, _: u16, body: &[u8]) -> ErrorDetails {
        error_details(body).0
    }

    fn request_id_header(&self) -> Option<&'static str> {
        None
    }
}

/// Tuned models have a collection of their own.
fn path(model: &str, verb: &str) -> Vec<String> {
    let (collection, name) = match model.split_once('/') {
        Some((collection @ ("models" | "tunedModels"), name)) => (collection, name),
        _ => ("models", model),
    };
    vec![VERSION.to_owned(), collection.to_owned(), format!("{name}:{verb}")]
}

fn is_batch(body: &str) -> bool {
    json_patch::value(body, "requests").is_ok_and(|requests| requests.is_some())
}

fn native_body(native: &NativeCall, call: &ProviderCall) -> Result<String, NotAnObject> {
    match native.operation {
        AiOperation::Chat => match call.max_output_tokens {
            Some(bound) => bounded(&native.body, &bound.to_string()),
            None => json_patch::value(&native.body, "contents").map(|_| native.body.clone()),
        },
        AiOperation::Embeddings => with_model_in_requests(&native.body, call),
        AiOperation::CountTokens => {
            let mut body = native.body.clone();
            for name in ["generateContentRequest", "generate_content_request"] {
                if let Some(request) = json_patch::value(&body, name)? {
                    let request = with_model(request, call)?;
                    body = json_patch::with(&body, name, &request)?;
                }
            }
            Ok(body)
        }
    }
}

/// Google reads a field under both of its names, so each one that is present is set.
fn bounded(body: &str, bound: &str) -> Result<String, NotAnObject> {
    let mut body = body.to_owned();
    let mut is_set = false;
    for config_name in ["generationConfig", "generation_config"] {
        let Some(config) = json_patch::value(&body, config_name)? else { continue };
        // A config that is no object is sent unchanged: Gemini reports the error.
        let Ok(is_old) = json_patch::value(config, "max_output_tokens").map(|value| value.is_some()) else { continue };
        let mut config = json_patch::with(config, "maxOutputTokens", bound)?;
        if is_old {
            config = json_patch::with(&config, "max_output_tokens", bound)?;
        }
        body = json_patch::with(&body, config_name, &config)?;
        is_set = true;
    }
    if is_set {
        return Ok(body);
    }
    let config = format!("{{\"maxOutputTokens\":{bound}}}");
    json_patch::with(&body, "generationConfig", &config)
}

/// Each request of a batch names its model again. All are set to the call's model, since another has another price.
fn with_model_in_requests(body: &str, call: &ProviderCall) -> Result<String, NotAnObject> {
    let body = if json_patch::value(body, "model")?.is_some() { with_model(body, call)? } else { body.to_owned() };
    let Some(requests) = json_patch::value(&body, "requests")? else { return Ok(body) };
    let requests: Vec<&RawValue> = serde_json::from_str(requests).map_err(|_| NotAnObject)?;
    let requests =
        requests.into_iter().map(|request| with_model(request.get(), call)).collect::<Result<Vec<_>, _>>()?;
    json_patch::with(&body, "requests", &format!("[{}]", requests.join(",")))
}

fn with_model(object: &str, call: &ProviderCall) -> Result<String, NotAnObject> {
    let model = call.model.as_str();
    let model = if model.contains('/') { model.to_owned() } else { format!("models/{model}") };
    json_patch::with(object, "model", &serde_json::Value::from(model).to_string())
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorObject,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorObject {
    #[serde(deserialize_with = "lenient::field")]
    code: Option<u16>,
    #[serde(deserialize_with = "lenient::text")]
    message: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    status: Option<String>,
    #[serde(deserialize_with = "lenient::field")]
    details: Option<Vec<Detail>>,
}

/// Any of Google's error details, with the fields that are used here.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Detail {
    reason: Option<String>,
    retry_delay: Option<String>,
    violations: Option<Vec<Violation>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Violation {
    quota_id: Option<String>,
}

/// The error details and the status that the body names. Sometimes the error is the only element of an array.
pub(super) fn error_details(body: &[u8]) -> (ErrorDetails, Option<u16>) {
    let error = if body.trim_ascii_start().starts_with(b"[") {
        serde_json::from_slice::<Vec<ErrorBody>>(body).ok().and_then(|wrapped| wrapped.into_iter().next())
    } else {
        serde_json::from_slice(body).ok()
    };
    let Some(ErrorBody { error }) = error else { return (ErrorDetails::default(), None) };
    let details = error.details.unwrap_or_default();
    let says = |words: &str| error.message.as_deref().is_some_and(|message| message.contains(words));
    // A place from which Google serves nobody is that of this service, not of its callers.
    let is_key = details.iter().any(|detail| detail.reason.as_deref() == Some("API_KEY_INVALID"))
        || says("User location is not supported");
    let mut quotas = details.iter().flat_map(|detail| detail.violations.iter().flatten());
    let is_spent = quotas.any(|violation| violation.quota_id.as_deref().is_some_and(|id| id.contains("Spend")))
        || says("spending cap");
    let retry_after = details.iter().find_map(|detail| google_duration(detail.retry_delay.as_deref()?));
    let means = match (is_key, is_spent) {
        (true, _) => ErrorMeaning::KeyRefused,
        (false, true) => ErrorMeaning::SpendLimit,
        (false, false) => ErrorMeaning::WhatTheStatusSays,
    };
    (ErrorDetails { message: error.message, code: error.status, means, retry_after }, error.code)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use domain::ai::{ModelId, ProviderProfile};

    use super::*;

    fn outgoing(operation: AiOperation, body: &str, model: &str, max_output_tokens: Option<u64>) -> Outgoing {
        let native =
            NativeCall { operation, body: body.to_owned(), headers: Vec::new(), framing: StreamFraming::JsonArray };
        let call = ProviderCall {
            provider: ProviderProfile::GEMINI,
            model: ModelId::parse(model).unwrap(),
            content: CallContent::Native(native),
            streamed: false,
            max_output_tokens,
        };
        Gemini.outgoing(&call).unwrap()
    }

    #[test]
    fn the_bound_stands_in_the_configuration() {
        for (before, after) in [
            (r#"{"contents":[]}"#, r#"{"contents":[],"generationConfig":{"maxOutputTokens":9}}"#),
            (
                r#"{"generationConfig": {"topK": 3, "maxOutputTokens":100},"a":1}"#,
                r#"{"generationConfig": {"topK": 3, "maxOutputTokens":9},"a":1}"#,
            ),
            (
                r#"{"generation_config":{"max_output_tokens":100}}"#,
                r#"{"generation_config":{"max_output_tokens":9,"maxOutputTokens":9}}"#,
            ),
            (r#"{"generationConfig":null}"#, r#"{"generationConfig":{"maxOutputTokens":9}}"#),
        ] {
            assert_eq!(outgoing(AiOperation::Chat, before, "g", Some(9)).body, after);
        }
        let odd = "{ \"contents\" : [] }";
        assert_eq!(outgoing(AiOperation::Chat, odd, "g", None).body, odd);
    }

    #[test]
    fn the_model_stands_in_the_path_and_in_what_is_nested() {
        let path = |operation, body, model| outgoing(operation, body, model, None).path.join("/");
        assert_eq!(path(AiOperation::Chat, "{}", "a/b"), "v1beta/models/a/b:generateContent");
        assert_eq!(path(AiOperation::Chat, "{}", "tunedModels/x"), "v1beta/tunedModels/x:generateContent");
        assert_eq!(path(AiOperation::CountTokens, "{}", "g"), "v1beta/models/g:countTokens");
        let single = outgoing(AiOperation::Embeddings, r#"{"content":{},"model":"models/dear"}"#, "g", None);
        assert_eq!(single.path.last().map(String::as_str), Some("g:embedContent"));
        assert_eq!(single.body, r#"{"content":{},"model":"models/g"}"#);
        let batch = r#"{"requests":[{"model":"models/dear","content":{}},{"content":{}}]}"#;
        let batch = outgoing(AiOperation::Embeddings, batch, "g", None);
        assert_eq!(batch.path.last().map(String::as_str), Some("g:batchEmbedContents"));
        let expected = r#"{"requests":[{"model":"models/g","content":{}},{"content":{},"model":"models/g"}]}"#;
        assert_eq!(batch.body, expected);
        let count = outgoing(AiOperation::CountTokens, r#"{"generateContentRequest":{"model":"dear"}}"#, "g", None);
        assert_eq!(count.body, r#"{"generateContentRequest":{"model":"models/g"}}"#);
    }

    #[test]
    fn a_refusal_is_read_alone_and_in_an_array() {
        let error = r#"{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED","details":[{"@type":"q","violations":[{"quotaId":"RequestsPerDay"}]},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"37s"}]}}"#;
        let expected = ErrorDetails {
            message: Some("m".into()),
            code: Some("RESOURCE_EXHAUSTED".into()),
            means: ErrorMeaning::WhatTheStatusSays,
            retry_after: Some(Duration::from_secs(37)),
        };
        assert_eq!(error_details(error.as_bytes()), (expected, Some(429)));
        assert_eq!(error_details(format!("[{error}]").as_bytes()), error_details(error.as_bytes()));
        let spent = error.replace("RequestsPerDay", "SpendPerMonth");
        assert_eq!(error_details(spent.as_bytes()).0.means, ErrorMeaning::SpendLimit);
        let key = br#"{"error":{"code":400,"message":"m","details":[{"reason":"API_KEY_INVALID","domain":"d"}]}}"#;
        assert_eq!(error_details(key).0.means, ErrorMeaning::KeyRefused);
        assert_eq!(
            (error_details(b"[]"), error_details(b"oops")),
            ((ErrorDetails::default(), None), (ErrorDetails::default(), None))
        );
    }
}
