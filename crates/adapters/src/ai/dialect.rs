//! A dialect: how a provider is asked, how its reply is read, and how it says no.

use domain::ai::{Delta, ReportedUsage};
use ports::ai::{Framing, ProviderCall, ProviderFault, Refusal};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::faults::Told;
use super::lenient::usage_with_numbers;
use super::members::NotAnObject;

/// A request, ready to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    /// Segments after the base URL, not escaped yet.
    pub path: Vec<String>,
    pub query: Option<&'static str>,
    /// Besides the credential and the content type.
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub awaited: Awaited,
}

/// How the reply is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    Whole,
    Stream(Framing),
}

/// What one frame says, or a whole reply.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Heard {
    pub deltas: Vec<Delta>,
    pub usage: Option<ReportedUsage>,
    pub request_id: Option<String>,
    pub model: Option<String>,
    pub shown: Shown,
    pub end: End,
    /// Whether something in it is not understood.
    pub is_unread: bool,
    /// The text of what is not understood. A native call is billed by it where the provider reports no usage.
    pub unread_text: String,
}

impl Heard {
    /// What is not understood, with the text in it.
    pub(super) fn unread(unread_text: String) -> Self {
        Self { is_unread: true, unread_text, ..Self::default() }
    }

    /// Adds text of a part that is not understood; a part without text adds nothing.
    pub(super) fn add_unread(&mut self, text: &str) {
        self.is_unread |= !text.is_empty();
        self.unread_text.push_str(text);
    }
}

/// What of the frame is for the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Shown {
    #[default]
    AsItCame,
    Nothing,
    /// This in place of its data.
    Data(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    #[default]
    GoesOn,
    /// The model has finished, and what follows is said about the answer: its usage, its end.
    Complete,
    /// The model has finished; the end of the body says that nothing follows.
    Finished,
    /// Nothing follows.
    Last,
}

/// Why a frame is not heard.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Misheard {
    /// It is an error, in the provider's words.
    Error(ProviderFault),
    /// It is no JSON object.
    Nonsense(&'static str),
}

/// Reads the frames of one reply in their order.
pub(super) trait Speech: Send {
    fn hear(&mut self, data: &[u8]) -> Result<Heard, Misheard>;
}

/// Hears a frame or a whole reply. A native call breaks at an error alone: what is not understood of its reply is kept, and the
/// text of that is billed as thinking. The deltas of a native call serve the bill; its caller gets the bytes.
pub(super) fn hear(speech: &mut dyn Speech, data: &[u8], is_native: bool) -> Result<Heard, Misheard> {
    let heard = speech.hear(data);
    if !is_native {
        return heard;
    }
    let mut heard = match heard {
        Err(Misheard::Nonsense(_)) => Heard::unread(String::from_utf8_lossy(data).into_owned()),
        heard => heard?,
    };
    if !heard.unread_text.is_empty() {
        heard.deltas.push(Delta::Thinking(std::mem::take(&mut heard.unread_text)));
    }
    Ok(heard)
}

pub(super) trait Dialect: Send + Sync {
    fn outgoing(&self, call: &ProviderCall) -> Result<Outgoing, ProviderFault>;

    fn speech(&self, call: &ProviderCall) -> Box<dyn Speech>;

    /// What a body says that came with this status.
    fn told(&self, status: u16, body: &[u8]) -> Told;

    /// The header with the key, and what stands before the key in it.
    fn credential(&self) -> (&'static str, &'static str);

    /// The header by which the provider names the request. Gemini names it in the body.
    fn request_id_header(&self) -> Option<&'static str>;
}

/// The object of a caller that is none: told as the providers tell it.
pub(super) fn malformed(what: &str) -> ProviderFault {
    ProviderFault::Refused(Refusal { status: 400, message: what.to_owned(), ..Refusal::default() })
}

impl From<NotAnObject> for ProviderFault {
    fn from(NotAnObject: NotAnObject) -> Self {
        malformed("the body is not a JSON object")
    }
}

/// JSON of the caller's that goes along as it is written; empty text is an empty object.
pub(super) fn json<'a>(text: &'a str, what: &str) -> Result<&'a RawValue, ProviderFault> {
    let text = if text.trim().is_empty() { "{}" } else { text };
    serde_json::from_str(text).map_err(|_| malformed(&format!("{what} is not JSON")))
}

/// A request of ours as text.
pub(super) fn written(request: &impl serde::Serialize) -> Result<String, ProviderFault> {
    serde_json::to_string(request).map_err(|error| ProviderFault::Broken(format!("the request is unwritable: {error}")))
}

/// The reported usage, as far as it can be read: a number that cannot be read is left out and the others are kept. The log
/// then says so. Without a usage the call is billed by its text.
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

/// Those headers of the caller that begin with one of these, without those that would say who calls or who pays.
pub(super) fn passed_on(headers: &[(String, String)], begins: &[&str], not: &[&str]) -> Vec<(String, String)> {
    let passes = |name: &str| begins.iter().any(|begin| name.starts_with(begin)) && !not.contains(&name);
    headers.iter().filter(|(name, _)| passes(name)).cloned().collect()
}
