//! How Gemini is asked natively, and how it says no. The model stands in the path here, not in the body.

use ports::ai::{CallContent, Framing, NativeCall, Operation, ProviderCall, ProviderFault};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::request;
use super::speech::GeminiSpeech;
use crate::ai::dialect::{Awaited, Dialect, Outgoing, Speech, passed_on};
use crate::ai::faults::{Means, Told, google_duration};
use crate::ai::lenient;
use crate::ai::members::{self, NotAnObject};

/// The newer of the two versions has all that the older one has.
const VERSION: &str = "v1beta";

/// Who calls and who pays is ours to say.
const OWN_HEADERS: [&str; 2] = ["x-goog-api-key", "x-goog-user-project"];

pub(in crate::ai) struct Gemini;

impl Dialect for Gemini {
    fn outgoing(&self, call: &ProviderCall) -> Result<Outgoing, ProviderFault> {
        let (operation, framing, body, headers) = match &call.content {
            CallContent::Native(native) => {
                let headers = passed_on(&native.headers, &["x-goog-"], &OWN_HEADERS);
                (native.operation, native.framing, native_body(native, call)?, headers)
            }
            CallContent::Conversation(conversation) => {
                (Operation::Chat, Framing::ServerSentEvents, request::written(conversation, call)?, Vec::new())
            }
        };
        let is_stream = call.streamed && operation == Operation::Chat;
        let verb = match operation {
            Operation::Chat if is_stream => "streamGenerateContent",
            Operation::Chat => "generateContent",
            Operation::CountTokens => "countTokens",
            Operation::Embeddings if is_batch(&body) => "batchEmbedContents",
            Operation::Embeddings => "embedContent",
        };
        let path = path(call.model.as_str(), verb);
        let query = (is_stream && framing == Framing::ServerSentEvents).then_some("alt=sse");
        let awaited = if is_stream { Awaited::Stream(framing) } else { Awaited::Whole };
        Ok(Outgoing { path, query, headers, body, awaited })
    }

    fn speech(&self, call: &ProviderCall) -> Box<dyn Speech> {
        let operation = match &call.content {
            CallContent::Native(native) => native.operation,
            CallContent::Conversation(_) => Operation::Chat,
        };
        Box::new(GeminiSpeech::new(operation))
    }

    fn told(&self, _: u16, body: &[u8]) -> Told {
        told(body).0
    }

    fn credential(&self) -> (&'static str, &'static str) {
        ("x-goog-api-key", "")
    }

    fn request_id_header(&self) -> Option<&'static str> {
        None
    }
}

/// Tuned models stand beside the others.
fn path(model: &str, verb: &str) -> Vec<String> {
    let (collection, name) = match model.split_once('/') {
        Some((collection @ ("models" | "tunedModels"), name)) => (collection, name),
        _ => ("models", model),
    };
    vec![VERSION.to_owned(), collection.to_owned(), format!("{name}:{verb}")]
}

fn is_batch(body: &str) -> bool {
    members::value(body, "requests").is_ok_and(|requests| requests.is_some())
}

fn native_body(native: &NativeCall, call: &ProviderCall) -> Result<String, NotAnObject> {
    match native.operation {
        Operation::Chat => match call.max_output_tokens {
            Some(bound) => bounded(&native.body, &bound.to_string()),
            None => members::value(&native.body, "contents").map(|_| native.body.clone()),
        },
        Operation::Embeddings => with_model_in_requests(&native.body, call),
        Operation::CountTokens => {
            let mut body = native.body.clone();
            for name in ["generateContentRequest", "generate_content_request"] {
                if let Some(request) = members::value(&body, name)? {
                    let request = with_model(request, call)?;
                    body = members::with(&body, name, &request)?;
                }
            }
            Ok(body)
        }
    }
}

/// Google reads a field under both of its names, so each that is there is set.
fn bounded(body: &str, bound: &str) -> Result<String, NotAnObject> {
    let mut body = body.to_owned();
    let mut is_set = false;
    for config_name in ["generationConfig", "generation_config"] {
        let Some(config) = members::value(&body, config_name)? else { continue };
        // What is no object goes as it is: Gemini says what is wrong with it.
        let Ok(is_old) = members::value(config, "max_output_tokens").map(|value| value.is_some()) else { continue };
        let mut config = members::with(config, "maxOutputTokens", bound)?;
        if is_old {
            config = members::with(&config, "max_output_tokens", bound)?;
        }
        body = members::with(&body, config_name, &config)?;
        is_set = true;
    }
    if is_set {
        return Ok(body);
    }
    let config = format!("{{\"maxOutputTokens\":{bound}}}");
    members::with(&body, "generationConfig", &config)
}

/// Each request of a batch names its model again, and one that names another would be another's price.
fn with_model_in_requests(body: &str, call: &ProviderCall) -> Result<String, NotAnObject> {
    let body = if members::value(body, "model")?.is_some() { with_model(body, call)? } else { body.to_owned() };
    let Some(requests) = members::value(&body, "requests")? else { return Ok(body) };
    let requests: Vec<&RawValue> = serde_json::from_str(requests).map_err(|_| NotAnObject)?;
    let requests =
        requests.into_iter().map(|request| with_model(request.get(), call)).collect::<Result<Vec<_>, _>>()?;
    members::with(&body, "requests", &format!("[{}]", requests.join(",")))
}

fn with_model(object: &str, call: &ProviderCall) -> Result<String, NotAnObject> {
    let model = call.model.as_str();
    let model = if model.contains('/') { model.to_owned() } else { format!("models/{model}") };
    members::with(object, "model", &serde_json::Value::from(model).to_string())
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

/// Any of Google's details, by the fields that mean something here.
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

/// What it says, and the status that it names. Sometimes it is the one element of an array.
pub(super) fn told(body: &[u8]) -> (Told, Option<u16>) {
    let error = if body.trim_ascii_start().starts_with(b"[") {
        serde_json::from_slice::<Vec<ErrorBody>>(body).ok().and_then(|wrapped| wrapped.into_iter().next())
    } else {
        serde_json::from_slice(body).ok()
    };
    let Some(ErrorBody { error }) = error else { return (Told::default(), None) };
    let details = error.details.unwrap_or_default();
    let is_key = details.iter().any(|detail| detail.reason.as_deref() == Some("API_KEY_INVALID"));
    let mut quotas = details.iter().flat_map(|detail| detail.violations.iter().flatten());
    let is_spent = quotas.any(|violation| violation.quota_id.as_deref().is_some_and(|id| id.contains("Spend")));
    let retry_after = details.iter().find_map(|detail| google_duration(detail.retry_delay.as_deref()?));
    let means = match (is_key, is_spent) {
        (true, _) => Means::KeyRefused,
        (false, true) => Means::SpendLimit,
        (false, false) => Means::WhatTheStatusSays,
    };
    (Told { message: error.message, code: error.status, means, retry_after }, error.code)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use domain::ai::{ModelId, Provider};

    use super::*;

    fn outgoing(operation: Operation, body: &str, model: &str, max_output_tokens: Option<u64>) -> Outgoing {
        let native = NativeCall { operation, body: body.to_owned(), headers: Vec::new(), framing: Framing::JsonArray };
        let call = ProviderCall {
            provider: Provider::Gemini,
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
            assert_eq!(outgoing(Operation::Chat, before, "g", Some(9)).body, after);
        }
        let odd = "{ \"contents\" : [] }";
        assert_eq!(outgoing(Operation::Chat, odd, "g", None).body, odd);
    }

    #[test]
    fn the_model_stands_in_the_path_and_in_what_is_nested() {
        let path = |operation, body, model| outgoing(operation, body, model, None).path.join("/");
        assert_eq!(path(Operation::Chat, "{}", "a/b"), "v1beta/models/a/b:generateContent");
        assert_eq!(path(Operation::Chat, "{}", "tunedModels/x"), "v1beta/tunedModels/x:generateContent");
        assert_eq!(path(Operation::CountTokens, "{}", "g"), "v1beta/models/g:countTokens");
        let single = outgoing(Operation::Embeddings, r#"{"content":{},"model":"models/dear"}"#, "g", None);
        assert_eq!(single.path.last().map(String::as_str), Some("g:embedContent"));
        assert_eq!(single.body, r#"{"content":{},"model":"models/g"}"#);
        let batch = r#"{"requests":[{"model":"models/dear","content":{}},{"content":{}}]}"#;
        let batch = outgoing(Operation::Embeddings, batch, "g", None);
        assert_eq!(batch.path.last().map(String::as_str), Some("g:batchEmbedContents"));
        let expected = r#"{"requests":[{"model":"models/g","content":{}},{"content":{},"model":"models/g"}]}"#;
        assert_eq!(batch.body, expected);
        let count = outgoing(Operation::CountTokens, r#"{"generateContentRequest":{"model":"dear"}}"#, "g", None);
        assert_eq!(count.body, r#"{"generateContentRequest":{"model":"models/g"}}"#);
    }

    #[test]
    fn a_refusal_is_read_alone_and_in_an_array() {
        let error = r#"{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED","details":[{"@type":"q","violations":[{"quotaId":"RequestsPerDay"}]},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"37s"}]}}"#;
        let expected = Told {
            message: Some("m".into()),
            code: Some("RESOURCE_EXHAUSTED".into()),
            means: Means::WhatTheStatusSays,
            retry_after: Some(Duration::from_secs(37)),
        };
        assert_eq!(told(error.as_bytes()), (expected, Some(429)));
        assert_eq!(told(format!("[{error}]").as_bytes()), told(error.as_bytes()));
        let spent = error.replace("RequestsPerDay", "SpendPerMonth");
        assert_eq!(told(spent.as_bytes()).0.means, Means::SpendLimit);
        let key = br#"{"error":{"code":400,"message":"m","details":[{"reason":"API_KEY_INVALID","domain":"d"}]}}"#;
        assert_eq!(told(key).0.means, Means::KeyRefused);
        assert_eq!((told(b"[]"), told(b"oops")), ((Told::default(), None), (Told::default(), None)));
    }
}
