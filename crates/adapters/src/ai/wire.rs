//! HTTP transport: one pooled client per provider, and bodies that are read within limits of bytes and of time.
//!
//! HTTP/2 where the provider offers it, HTTP/1.1 otherwise. Redirects are not followed, since they would send the API
//! key elsewhere, and nothing is compressed, since frames are passed on as they come. A proxy from the environment is
//! used, but not for a loopback address.

use std::error::Error;
use std::time::Duration;

use ports::ai::{ProviderFault, ProviderWait};
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Client, Response};
use tokio::time::{Instant, timeout, timeout_at};

use super::access::RequestBase;
use super::dialect::{Awaited, Outgoing, malformed};
use crate::addresses::is_loopback;

/// Limit of a whole reply.
const REPLY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Limit of an error body. The rest is not read.
const REFUSAL_BYTES_MAX: usize = 1024 * 1024;
/// How many idle connections are kept, and for how long.
const IDLE_CONNECTIONS_MAX: usize = 512;
const KEPT_IDLE: Duration = Duration::from_mins(1);
/// Interval of keep-alive probes on open connections.
const ALIVE_EVERY: Duration = Duration::from_secs(30);
/// The longest field name of an event, and the most leading blanks.
const LONGEST_FIELD: usize = 5;
const BLANKS_MAX: usize = 64 * 1024;
/// How long the end of a body may take after its last frame; the connection can then be reused.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// Time limits for a provider.
#[derive(Clone, Copy, Debug)]
pub struct ProviderTimeouts {
    pub connect: Duration,
    /// From the call to the first byte of a streamed reply. A whole reply begins when it is complete, so it has the
    /// total.
    pub first_byte: Duration,
    /// Between two pieces of a reply.
    pub idle: Duration,
    /// For a whole reply. A stream may last as long as data arrives.
    pub total: Duration,
}

pub(super) struct Wire {
    client: Client,
    base: RequestBase,
    timeouts: ProviderTimeouts,
}

/// The head of a response, with its body still unread.
pub(super) struct Answered {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Body,
}

pub(super) struct Body {
    response: Response,
    /// The deadline of the first byte.
    begins_by: Instant,
    ends_by: Option<Instant>,
    idle: Duration,
    has_begun: bool,
    /// Bytes that were inspected but not yet consumed.
    ahead: Vec<u8>,
}

/// What a body looks like, whatever its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looks {
    Events,
    Object,
    List,
    Unknown,
}

impl Wire {
    pub(super) fn new(base: RequestBase, timeouts: ProviderTimeouts) -> Result<Self, reqwest::Error> {
        // Building a client panics if no cryptography provider is installed. A second installation changes nothing.
        rustls::crypto::ring::default_provider().install_default().ok();
        let builder = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(timeouts.connect)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(KEPT_IDLE)
            .tcp_keepalive(ALIVE_EVERY)
            .http2_adaptive_window(true)
            .http2_keep_alive_interval(ALIVE_EVERY)
            .user_agent(concat!("product-base/", env!("CARGO_PKG_VERSION")));
        let builder = if is_loopback(&base.url) { builder.no_proxy() } else { builder };
        Ok(Self { client: builder.build()?, base, timeouts })
    }

    pub(super) async fn send(&self, outgoing: Outgoing) -> Result<Answered, ProviderFault> {
        let mut url = self.base.url.clone();
        // A base URL that cannot have a path was refused by `RequestBase::new`.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(outgoing.path);
        }
        url.set_query(outgoing.query);
        if !self.base.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.base.query);
        }
        let now = Instant::now();
        let (begins_by, ends_by) = match outgoing.awaited {
            Awaited::Whole => (now + self.timeouts.total, Some(now + self.timeouts.total)),
            Awaited::Stream(_) => (now + self.timeouts.first_byte, None),
        };
        let mut request = self.client.post(url).header(CONTENT_TYPE, "application/json").body(outgoing.body);
        for (name, value) in outgoing.headers {
            request = request.header(name, value);
        }
        // Those of the settings replace the caller's.
        let sending = request.headers(self.base.headers.clone()).send();
        let response =
            timeout_at(begins_by, sending).await.map_err(|_| ProviderFault::TimedOut(ProviderWait::FirstByte))?;
        let response = response.map_err(|error| unsent(&error))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = Body { response, begins_by, ends_by, idle: self.timeouts.idle, has_begun: false, ahead: Vec::new() };
        Ok(Answered { status, headers, body })
    }
}

impl Body {
    /// The next bytes, or `None` at the orderly end.
    pub(super) async fn chunk(&mut self) -> Result<Option<impl AsRef<[u8]> + use<>>, ProviderFault> {
        let (until, wait) = if self.has_begun {
            let idle = Instant::now() + self.idle;
            (self.ends_by.map_or(idle, |ends_by| ends_by.min(idle)), ProviderWait::Rest)
        } else {
            (self.begins_by, ProviderWait::FirstByte)
        };
        let chunk = timeout_at(until, self.response.chunk()).await.map_err(|_| ProviderFault::TimedOut(wait))?;
        self.has_begun = true;
        chunk.map_err(|error| ProviderFault::Broken(innermost(&error)))
    }

    /// Inspects the first bytes without consuming them.
    pub(super) async fn looks(&mut self) -> Result<Looks, ProviderFault> {
        while looks_like(&self.ahead).is_none() {
            let Some(bytes) = self.chunk().await? else { break };
            self.ahead.extend_from_slice(bytes.as_ref());
        }
        Ok(looks_like(&self.ahead).unwrap_or(Looks::Unknown))
    }

    /// The inspected bytes.
    pub(super) fn take_ahead(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.ahead)
    }

    /// The whole body. Once a part of it has arrived, the provider has generated the answer: one that breaks off after
    /// that, or is too large, is a lost answer.
    pub(super) async fn whole(mut self) -> Result<Vec<u8>, ProviderFault> {
        let mut bytes = self.take_ahead();
        loop {
            let chunk = match self.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Ok(bytes),
                Err(ProviderFault::Broken(why)) if !bytes.is_empty() => return Err(ProviderFault::LostAnswer(why)),
                Err(fault) => return Err(fault),
            };
            if bytes.len() + chunk.as_ref().len() > REPLY_BYTES_MAX {
                return Err(ProviderFault::LostAnswer("it is larger than 32 MiB".to_owned()));
            }
            bytes.extend_from_slice(chunk.as_ref());
        }
    }

    /// As much of an error body as arrives; the status alone is enough.
    pub(super) async fn refusal(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Ok(Some(chunk)) = self.chunk().await {
            bytes.extend_from_slice(chunk.as_ref());
            if bytes.len() > REFUSAL_BYTES_MAX {
                bytes.truncate(REFUSAL_BYTES_MAX);
                break;
            }
        }
        bytes
    }

    /// Called after the last frame: reads the rest of the body, without which the connection would be closed.
    pub(super) fn leave(mut self) {
        tokio::spawn(async move {
            let end = async { while matches!(self.response.chunk().await, Ok(Some(_))) {} };
            // A body that does not end in time only costs the connection.
            timeout(END_PATIENCE, end).await.ok();
        });
    }
}

/// What a body with this beginning is. `None` where that is not yet clear.
fn looks_like(begins: &[u8]) -> Option<Looks> {
    let bytes = begins.strip_prefix(b"\xef\xbb\xbf").unwrap_or(begins).trim_ascii_start();
    let line = bytes.split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
    let is_line_whole = line.len() < bytes.len() || line.len() > LONGEST_FIELD || line.contains(&b':');
    match bytes.first() {
        None if begins.len() > BLANKS_MAX => Some(Looks::Unknown),
        None => None,
        Some(b'{') => Some(Looks::Object),
        Some(b'[') => Some(Looks::List),
        Some(_) if !is_line_whole => None,
        Some(_) => {
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
            let is_field = matches!(name, b"" | b"data" | b"event" | b"id" | b"retry");
            Some(if is_field { Looks::Events } else { Looks::Unknown })
        }
    }
}

/// Why no response head arrived.
fn unsent(error: &reqwest::Error) -> ProviderFault {
    // Only a header of the caller can be invalid here.
    if error.is_builder() {
        return malformed("a header cannot be passed on");
    }
    match (error.is_connect(), error.is_timeout()) {
        (_, true) => ProviderFault::TimedOut(ProviderWait::Connection),
        (true, false) => ProviderFault::Unreachable(innermost(error)),
        (false, false) => ProviderFault::Broken(innermost(error)),
    }
}

/// The innermost cause: the errors around it only say that a request failed, and name its URL.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    // Without a cause the text would name the URL.
    if error.source().is_none() { "the request failed".to_owned() } else { cause.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_told_by_how_it_begins() {
        for (begins, looks) in [
            ("data: {}", Some(Looks::Events)),
            ("\u{feff}\r\nevent:x", Some(Looks::Events)),
            (": comment", Some(Looks::Events)),
            ("data\n", Some(Looks::Events)),
            (" {", Some(Looks::Object)),
            ("[", Some(Looks::List)),
            ("<html>", Some(Looks::Unknown)),
            ("upstream: no", Some(Looks::Unknown)),
            ("dat", None),
            ("\n\n", None),
            ("", None),
        ] {
            assert_eq!(looks_like(begins.as_bytes()), looks, "{begins:?}");
        }
    }
}
