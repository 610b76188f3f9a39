//! A dialect: writes requests to a provider, parses its replies and interprets its errors.

use domain::ai::{AnswerDelta, ReportedUsage};
use ports::ai::{ProviderCall, ProviderFault, ProviderRefusal, StreamFraming};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::errors::ErrorDetails;
use super::json_patch::NotAnObject;
use super::lenient::{Output, usage_with_numbers};

/// A request that is ready to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    /// Path segments after the base URL, not yet escaped.
    pub path: Vec<String>,
    pub query: Option<&'static str>,
    /// All headers except the credential and the content type.
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub awaited: Awaited,
}

/// The expected form of the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    Whole,
    Stream(StreamFraming),
}

/// The content of one frame or of a whole reply.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Parsed {
    pub deltas: Vec<AnswerDelta>,
    /// The output that is no delta: an estimate by its size, in tokens.
    pub hidden_tokens: u64,
    pub usage: Option<ReportedUsage>,
    pub request_id: Option<String>,
    pub model: Option<String>,
    pub shown: Passthrough,
    pub end: End,
    /// Whether a part of it was not understood.
    pub is_unread: bool,
    /// The text of the parts not understood. It is what a native call pays for where the provider reports no usage.
    pub unread_text: String,
}

impl Parsed {
    /// A frame that was not understood, with the output in it.
    pub(super) fn unread(output: Output) -> Self {
        Self { is_unread: true, unread_text: output.text, hidden_tokens: output.hidden_tokens, ..Self::default() }
    }

    /// Adds the output in a part that is not understood; a part without output adds nothing.
    pub(super) fn add_unread(&mut self, output: &Output) {
        self.is_unread |= *output != Output::default();
        self.add_output(output);
    }

    /// Adds output that is beside what is understood.
    pub(super) fn add_output(&mut self, output: &Output) {
        self.unread_text.push_str(&output.text);
        self.hidden_tokens = self.hidden_tokens.saturating_add(output.hidden_tokens);
    }
}

/// What the caller receives of the frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Passthrough {
    #[default]
    AsItCame,
    Nothing,
    /// This text in place of the frame's data.
    Data(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    #[default]
    GoesOn,
    /// The model has finished; only facts about the answer follow, such as its usage.
    Complete,
    /// The model has finished; the end of the body ends the reply.
    Finished,
    /// Nothing follows.
    Last,
}

/// Why a frame could not be parsed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ParseError {
    /// It is an error from the provider, with the usage that it reports beside it: the provider bills that.
    Error(Box<ReportedError>),
    /// It is not a JSON object.
    Nonsense(&'static str),
}

/// An error in the place of an answer, or beside one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ReportedError {
    pub fault: ProviderFault,
    pub usage: Option<ReportedUsage>,
}

/// Parses the frames of one reply in order.
pub(super) trait ResponseParser: Send {
    fn parse(&mut self, data: &[u8]) -> Result<Parsed, ParseError>;
}

/// Parses a frame or a whole reply. A native call fails only at an error: what is not understood of its reply is kept,
/// and its text is billed as thinking. The deltas of a native call serve billing; its caller gets the bytes.
pub(super) fn parse(parser: &mut dyn ResponseParser, data: &[u8], is_native: bool) -> Result<Parsed, ParseError> {
    let parsed = parser.parse(data);
    if !is_native {
        return parsed;
    }
    let mut parsed = match parsed {
        Err(ParseError::Nonsense(_)) => {
            Parsed::unread(Output { text: String::from_utf8_lossy(data).into_owned(), hidden_tokens: 0 })
        }
        parsed => parsed?,
    };
    if !parsed.unread_text.is_empty() {
        parsed.deltas.push(AnswerDelta::Thinking(std::mem::take(&mut parsed.unread_text)));
    }
    Ok(parsed)
}

pub(super) trait DialectFormat: Send + Sync {
    fn outgoing(&self, call: &ProviderCall) -> Result<Outgoing, ProviderFault>;

    fn parser(&self, call: &ProviderCall) -> Box<dyn ResponseParser>;

    /// Interprets the body of an error response with this status.
    fn error_details(&self, status: u16, body: &[u8]) -> ErrorDetails;

    /// The header with the provider's request id. Gemini sends its id in the body.
    fn request_id_header(&self) -> Option<&'static str>;
}

/// The error for a malformed object of the caller, in the form of a provider's refusal.
pub(super) fn malformed(what: &str) -> ProviderFault {
    ProviderFault::Refused(ProviderRefusal { status: 400, message: what.to_owned(), ..ProviderRefusal::default() })
}

impl From<NotAnObject> for ProviderFault {
    fn from(NotAnObject: NotAnObject) -> Self {
        malformed("the body is not a JSON object")
    }
}

/// JSON text of the caller, passed on unchanged. Empty text becomes an empty object.
pub(super) fn json<'a>(text: &'a str, what: &str) -> Result<&'a RawValue, ProviderFault> {
    let text = if text.trim().is_empty() { "{}" } else { text };
    serde_json::from_str(text).map_err(|_| malformed(&format!("{what} is not JSON")))
}

/// Serializes a request of ours.
pub(super) fn written(request: &impl serde::Serialize) -> Result<String, ProviderFault> {
    serde_json::to_string(request).map_err(|error| ProviderFault::Broken(format!("the request is unwritable: {error}")))
}

/// The reported usage, as far as it can be read: an unreadable number is left out, the others are kept, and the log
/// says so. Without a usage the call is billed by its text.
pub(super) fn usage<T: DeserializeOwned>(raw: Option<&RawValue>) -> Option<T> {
    let raw = raw.filter(|raw| raw.get() != "null")?;
    if let Ok(usage) = serde_json::from_str(raw.get()) {
        return Some(usage);
    }
    let mut readable = usage_with_numbers(raw)?;
    let is_readable = |name: &str, member: &Value| {
        serde_json::from_value::<T>(Map::from_iter([(name.to_owned(), member.clone())]).into()).is_ok()
    };
    readable.retain(|name, member| is_readable(name, member));
    tracing::warn!("a provider's usage is understood in parts");
    if readable.is_empty() { None } else { serde_json::from_value(readable.into()).ok() }
}

/// The caller's headers that begin with one of `begins`, without those in `not`, which name the account.
pub(super) fn passed_on(headers: &[(String, String)], begins: &[&str], not: &[&str]) -> Vec<(String, String)> {
    let passes = |name: &str| begins.iter().any(|begin| name.starts_with(begin)) && !not.contains(&name);
    headers.iter().filter(|(name, _)| passes(name)).cloned().collect()
}
