//! Parses a request: its dialect, model and kind of response. Checks what a provider checks before it generates
//! anything: the credential, Anthropic's version, required fields.

use serde_json::Value;

use super::http::UpstreamRequest;
use super::refusals::{Refusal, Why};
use super::words;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamDialect {
    OpenAi,
    Anthropic,
    Gemini,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamCallKind {
    Whole,
    /// Server-sent events.
    Events,
    /// Gemini's stream without `alt=sse`: one JSON array.
    Array,
    CountTokens,
    Embeddings,
    Models,
}

#[derive(Clone, Debug)]
pub struct UpstreamAsk {
    pub dialect: UpstreamDialect,
    pub kind: UpstreamCallKind,
    /// Empty for the list of all models.
    pub model: String,
    /// OpenAI's `stream_options`.
    pub include_usage: bool,
    pub obfuscation: bool,
    /// The most tokens of a response, thinking included.
    pub limit: Option<u64>,
    pub choices: u64,
    /// The number of words in the prompt.
    pub input_tokens: u64,
    /// The length of the whole body.
    pub body_bytes: u64,
    pub body: Value,
}

impl UpstreamAsk {
    pub fn offers_tools(&self) -> bool {
        self.body.get("tools").and_then(Value::as_array).is_some_and(|tools| !tools.is_empty())
    }

    /// Whether the conversation contains a tool result in any dialect's format.
    pub fn brings_result(&self) -> bool {
        fn is_in(value: &Value) -> bool {
            match value {
                Value::Array(items) => items.iter().any(is_in),
                Value::Object(fields) => {
                    let names = ["functionResponse", "function_response"];
                    fields.get("role") == Some(&Value::from("tool"))
                        || fields.get("type") == Some(&Value::from("tool_result"))
                        || names.iter().any(|name| fields.contains_key(*name))
                        || fields.values().any(is_in)
                }
                _ => false,
            }
        }
        ["messages", "contents"].iter().filter_map(|name| self.body.get(*name)).any(is_in)
    }
}

/// The parsed request, or its refusal. With `key`, every other credential is refused.
pub fn understand(request: &UpstreamRequest, key: Option<&str>) -> Result<UpstreamAsk, (UpstreamDialect, Refusal)> {
    let path = decoded(request.path());
    let (dialect, kind, model) = route(&request.method, &path)
        .ok_or((dialect_of(&path), Refusal::of(Why::NotFound(format!("{} {path} is not served", request.method)))))?;
    let refused = |why| Err((dialect, Refusal::of(why)));
    let credential = credential(request, dialect);
    if credential.is_none_or(|given| given.is_empty() || key.is_some_and(|key| key != given)) {
        return refused(Why::Unauthenticated);
    }
    if dialect == UpstreamDialect::Anthropic && request.header("anthropic-version").is_none() {
        return refused(Why::Invalid("anthropic-version: header is required".to_owned()));
    }
    if kind == UpstreamCallKind::Models {
        return Ok(asked(dialect, kind, model, Value::Null));
    }
    let Some(body @ Value::Object(_)) = request.json() else {
        return refused(Why::Invalid("the body is not a JSON object".to_owned()));
    };
    let model = if dialect == UpstreamDialect::Gemini { model } else { text(&body, "model") };
    let mut ask = asked(dialect, kind, model, body);
    ask.body_bytes = u64::try_from(request.body.len()).unwrap_or(u64::MAX);
    if let Some(missing) = missing(&ask) {
        return refused(Why::Invalid(missing));
    }
    if kind == UpstreamCallKind::Whole && ask.body.get("stream") == Some(&Value::Bool(true)) {
        ask.kind = UpstreamCallKind::Events;
    }
    if kind == UpstreamCallKind::Array && request.parameter("alt") == Some("sse") {
        ask.kind = UpstreamCallKind::Events;
    }
    Ok(ask)
}

fn route(method: &str, path: &str) -> Option<(UpstreamDialect, UpstreamCallKind, String)> {
    let plain = |dialect, kind| Some((dialect, kind, String::new()));
    match (method, path) {
        ("POST", "/v1/chat/completions") => plain(UpstreamDialect::OpenAi, UpstreamCallKind::Whole),
        ("POST", "/v1/embeddings") => plain(UpstreamDialect::OpenAi, UpstreamCallKind::Embeddings),
        ("GET", "/v1/models") => plain(UpstreamDialect::OpenAi, UpstreamCallKind::Models),
        ("POST", "/v1/messages") => plain(UpstreamDialect::Anthropic, UpstreamCallKind::Whole),
        ("POST", "/v1/messages/count_tokens") => plain(UpstreamDialect::Anthropic, UpstreamCallKind::CountTokens),
        ("GET", _) => {
            let model = path.strip_prefix("/v1/models/").filter(|model| !model.is_empty())?;
            Some((UpstreamDialect::OpenAi, UpstreamCallKind::Models, model.to_owned()))
        }
        ("POST", _) => {
            let rest = path.strip_prefix("/v1beta/models/").or_else(|| path.strip_prefix("/v1/models/"))?;
            // A model id may contain a slash; the verb follows the last colon.
            let (model, verb) = rest.rsplit_once(':').filter(|(model, _)| !model.is_empty())?;
            let kind = match verb {
                "generateContent" => UpstreamCallKind::Whole,
                "streamGenerateContent" => UpstreamCallKind::Array,
                "countTokens" => UpstreamCallKind::CountTokens,
                "embedContent" | "batchEmbedContents" => UpstreamCallKind::Embeddings,
                _ => return None,
            };
            Some((UpstreamDialect::Gemini, kind, model.to_owned()))
        }
        _ => None,
    }
}

/// The dialect in which an unknown path is refused.
fn dialect_of(path: &str) -> UpstreamDialect {
    if path.starts_with("/v1/messages") {
        UpstreamDialect::Anthropic
    } else if path.starts_with("/v1beta/") || (path.starts_with("/v1/models/") && path.contains(':')) {
        UpstreamDialect::Gemini
    } else {
        UpstreamDialect::OpenAi
    }
}

fn credential(request: &UpstreamRequest, dialect: UpstreamDialect) -> Option<&str> {
    let bearer = || request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    match dialect {
        // Azure takes the key in a header of its own.
        UpstreamDialect::OpenAi => bearer().or_else(|| request.header("api-key")),
        UpstreamDialect::Anthropic => request.header("x-api-key").or_else(bearer),
        UpstreamDialect::Gemini => request.header("x-goog-api-key").or_else(|| request.parameter("key")),
    }
}

fn asked(dialect: UpstreamDialect, kind: UpstreamCallKind, model: String, body: Value) -> UpstreamAsk {
    let options = body.get("stream_options");
    let option = |name| options.and_then(|options| options.get(name)).and_then(Value::as_bool);
    let number = |name| body.get(name).and_then(Value::as_u64);
    let config = body.get("generationConfig");
    let limit = match dialect {
        UpstreamDialect::OpenAi => number("max_completion_tokens").or_else(|| number("max_tokens")),
        UpstreamDialect::Anthropic => number("max_tokens"),
        UpstreamDialect::Gemini => config.and_then(|config| config.get("maxOutputTokens")).and_then(Value::as_u64),
    };
    UpstreamAsk {
        dialect,
        kind,
        model,
        include_usage: option("include_usage").unwrap_or(false),
        obfuscation: option("include_obfuscation").unwrap_or(true),
        limit,
        choices: if dialect == UpstreamDialect::OpenAi { number("n").unwrap_or(1) } else { 1 },
        body_bytes: 0,
        input_tokens: if kind == UpstreamCallKind::Embeddings { embedded(&body) } else { spoken_to(&body, false) },
        body,
    }
}

/// The provider's error message for a body with a missing field or a value out of range.
fn missing(ask: &UpstreamAsk) -> Option<String> {
    let has_list = |name: &str| ask.body.get(name).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    let said = |message: &str| Some(message.to_owned());
    match (ask.dialect, ask.kind) {
        _ if ask.model.is_empty() => said("you must provide a model parameter"),
        (UpstreamDialect::OpenAi, UpstreamCallKind::Embeddings) if ask.body.get("input").is_none() => {
            said("input: Field required")
        }
        (UpstreamDialect::Gemini, UpstreamCallKind::Embeddings)
            if ask.body.get("content").is_none() && !has_list("requests") =>
        {
            said("content is not specified")
        }
        (_, UpstreamCallKind::Embeddings) => None,
        (UpstreamDialect::OpenAi, _) if !(1..=128).contains(&ask.choices) => said("n must be between 1 and 128"),
        (UpstreamDialect::OpenAi | UpstreamDialect::Anthropic, _) if !has_list("messages") => {
            said("messages: Field required")
        }
        (UpstreamDialect::Anthropic, UpstreamCallKind::Whole) if ask.limit.is_none() => {
            said("max_tokens: Field required")
        }
        (UpstreamDialect::Gemini, _) if !has_list("contents") => said("contents is not specified"),
        (UpstreamDialect::Gemini, _)
            if ask.body.pointer("/generationConfig/candidateCount").is_some_and(|n| *n != 1) =>
        {
            said("Multiple candidates is not enabled for this model")
        }
        _ => None,
    }
}

/// Counts the words of all strings below `content`, `text` or `system`, the fields with a prompt's text.
fn spoken_to(value: &Value, is_text: bool) -> u64 {
    match value {
        Value::String(text) if is_text => words::count(text),
        Value::Array(items) => items.iter().map(|item| spoken_to(item, is_text)).sum(),
        Value::Object(fields) => {
            let prompt = fields.iter().filter(|(name, _)| PROMPT.contains(&name.as_str()));
            prompt.map(|(name, inner)| spoken_to(inner, TEXT.contains(&name.as_str()))).sum()
        }
        _ => 0,
    }
}

const TEXT: [&str; 3] = ["content", "text", "system"];
const PROMPT: [&str; 9] = [
    "content",
    "text",
    "system",
    "messages",
    "contents",
    "parts",
    "systemInstruction",
    "system_instruction",
    "requests",
];

/// The tokens to embed: words, or tokens that the client counted.
fn embedded(body: &Value) -> u64 {
    fn tokens(value: &Value) -> u64 {
        match value {
            Value::String(text) => words::count(text),
            Value::Array(items) => items.iter().map(tokens).sum(),
            Value::Number(_) => 1,
            _ => 0,
        }
    }
    body.get("input").map_or_else(|| spoken_to(body, false), tokens)
}

fn text(body: &Value, name: &str) -> String {
    body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Percent-decoded, since SDKs escape the slash of a model id. Invalid escapes stay as they are.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escape = (*first == b'%').then(|| after.split_at_checked(2)).flatten();
        let byte = escape.and_then(|(digits, _)| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        if let (Some(byte), Some((_, beyond))) = (byte, escape) {
            bytes.push(byte);
            rest = beyond;
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
