//! What a request asks for: which dialect, which model, which kind of answer. Here stands what a provider checks before
//! it generates anything: the credential, Anthropic's version, required fields.

use serde_json::Value;

use super::http::Request;
use super::refusals::{Refusal, Why};
use super::words;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    OpenAi,
    Anthropic,
    Gemini,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
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
pub struct Ask {
    pub dialect: Dialect,
    pub kind: Kind,
    /// Empty where all models are asked for.
    pub model: String,
    /// OpenAI's `stream_options`.
    pub include_usage: bool,
    pub obfuscation: bool,
    /// The most tokens of an answer, thinking included.
    pub limit: Option<u64>,
    pub choices: u64,
    /// How many words the prompt has.
    pub input_tokens: u64,
    /// How long the whole body is.
    pub body_bytes: u64,
    pub body: Value,
}

impl Ask {
    pub fn offers_tools(&self) -> bool {
        self.body.get("tools").and_then(Value::as_array).is_some_and(|tools| !tools.is_empty())
    }

    /// Whether the conversation holds the result of a tool, in the words of any dialect.
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

/// What is asked for, or how it is refused. With `key`, every other credential is refused.
pub fn understand(request: &Request, key: Option<&str>) -> Result<Ask, (Dialect, Refusal)> {
    let path = decoded(request.path());
    let (dialect, kind, model) = route(&request.method, &path)
        .ok_or((dialect_of(&path), Refusal::of(Why::NotFound(format!("{} {path} is not served", request.method)))))?;
    let refused = |why| Err((dialect, Refusal::of(why)));
    let credential = credential(request, dialect);
    if credential.is_none_or(|given| given.is_empty() || key.is_some_and(|key| key != given)) {
        return refused(Why::Unauthenticated);
    }
    if dialect == Dialect::Anthropic && request.header("anthropic-version").is_none() {
        return refused(Why::Invalid("anthropic-version: header is required".to_owned()));
    }
    if kind == Kind::Models {
        return Ok(asked(dialect, kind, model, Value::Null));
    }
    let Some(body @ Value::Object(_)) = request.json() else {
        return refused(Why::Invalid("the body is not a JSON object".to_owned()));
    };
    let model = if dialect == Dialect::Gemini { model } else { text(&body, "model") };
    let mut ask = asked(dialect, kind, model, body);
    ask.body_bytes = u64::try_from(request.body.len()).unwrap_or(u64::MAX);
    if let Some(missing) = missing(&ask) {
        return refused(Why::Invalid(missing));
    }
    if kind == Kind::Whole && ask.body.get("stream") == Some(&Value::Bool(true)) {
        ask.kind = Kind::Events;
    }
    if kind == Kind::Array && request.parameter("alt") == Some("sse") {
        ask.kind = Kind::Events;
    }
    Ok(ask)
}

fn route(method: &str, path: &str) -> Option<(Dialect, Kind, String)> {
    let plain = |dialect, kind| Some((dialect, kind, String::new()));
    match (method, path) {
        ("POST", "/v1/chat/completions") => plain(Dialect::OpenAi, Kind::Whole),
        ("POST", "/v1/embeddings") => plain(Dialect::OpenAi, Kind::Embeddings),
        ("GET", "/v1/models") => plain(Dialect::OpenAi, Kind::Models),
        ("POST", "/v1/messages") => plain(Dialect::Anthropic, Kind::Whole),
        ("POST", "/v1/messages/count_tokens") => plain(Dialect::Anthropic, Kind::CountTokens),
        ("GET", _) => {
            let model = path.strip_prefix("/v1/models/").filter(|model| !model.is_empty())?;
            Some((Dialect::OpenAi, Kind::Models, model.to_owned()))
        }
        ("POST", _) => {
            let rest = path.strip_prefix("/v1beta/models/").or_else(|| path.strip_prefix("/v1/models/"))?;
            // A model's id may contain a slash, and the verb follows the last colon.
            let (model, verb) = rest.rsplit_once(':').filter(|(model, _)| !model.is_empty())?;
            let kind = match verb {
                "generateContent" => Kind::Whole,
                "streamGenerateContent" => Kind::Array,
                "countTokens" => Kind::CountTokens,
                "embedContent" | "batchEmbedContents" => Kind::Embeddings,
                _ => return None,
            };
            Some((Dialect::Gemini, kind, model.to_owned()))
        }
        _ => None,
    }
}

/// In whose words a path is refused that nobody serves.
fn dialect_of(path: &str) -> Dialect {
    if path.starts_with("/v1/messages") {
        Dialect::Anthropic
    } else if path.starts_with("/v1beta/") || (path.starts_with("/v1/models/") && path.contains(':')) {
        Dialect::Gemini
    } else {
        Dialect::OpenAi
    }
}

fn credential(request: &Request, dialect: Dialect) -> Option<&str> {
    let bearer = || request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    match dialect {
        Dialect::OpenAi => bearer(),
        Dialect::Anthropic => request.header("x-api-key").or_else(bearer),
        Dialect::Gemini => request.header("x-goog-api-key").or_else(|| request.parameter("key")),
    }
}

fn asked(dialect: Dialect, kind: Kind, model: String, body: Value) -> Ask {
    let options = body.get("stream_options");
    let option = |name| options.and_then(|options| options.get(name)).and_then(Value::as_bool);
    let number = |name| body.get(name).and_then(Value::as_u64);
    let config = body.get("generationConfig");
    let limit = match dialect {
        Dialect::OpenAi => number("max_completion_tokens").or_else(|| number("max_tokens")),
        Dialect::Anthropic => number("max_tokens"),
        Dialect::Gemini => config.and_then(|config| config.get("maxOutputTokens")).and_then(Value::as_u64),
    };
    Ask {
        dialect,
        kind,
        model,
        include_usage: option("include_usage").unwrap_or(false),
        obfuscation: option("include_obfuscation").unwrap_or(true),
        limit,
        choices: if dialect == Dialect::OpenAi { number("n").unwrap_or(1) } else { 1 },
        body_bytes: 0,
        input_tokens: if kind == Kind::Embeddings { embedded(&body) } else { spoken_to(&body, false) },
        body,
    }
}

/// The message of a provider that lacks something in the body, or finds too much of it.
fn missing(ask: &Ask) -> Option<String> {
    let has_list = |name: &str| ask.body.get(name).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    let said = |message: &str| Some(message.to_owned());
    match (ask.dialect, ask.kind) {
        _ if ask.model.is_empty() => said("you must provide a model parameter"),
        (Dialect::OpenAi, Kind::Embeddings) if ask.body.get("input").is_none() => said("input: Field required"),
        (Dialect::Gemini, Kind::Embeddings) if ask.body.get("content").is_none() && !has_list("requests") => {
            said("content is not specified")
        }
        (_, Kind::Embeddings) => None,
        (Dialect::OpenAi, _) if !(1..=128).contains(&ask.choices) => said("n must be between 1 and 128"),
        (Dialect::OpenAi | Dialect::Anthropic, _) if !has_list("messages") => said("messages: Field required"),
        (Dialect::Anthropic, Kind::Whole) if ask.limit.is_none() => said("max_tokens: Field required"),
        (Dialect::Gemini, _) if !has_list("contents") => said("contents is not specified"),
        (Dialect::Gemini, _) if ask.body.pointer("/generationConfig/candidateCount").is_some_and(|n| *n != 1) => {
            said("Multiple candidates is not enabled for this model")
        }
        _ => None,
    }
}

/// The words of the strings that stand, at any depth, under `content`, `text` or `system`, where a prompt has its text.
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

/// The tokens of what is to be embedded: words, or tokens that the client counted itself.
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

/// Percent-decoded, since SDKs escape the slash of a model's id. What is no escape stays as it is.
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
