//! One attempt at a provider over HTTP: the request of its dialect, and the reply from its first piece on.
//!
//! A call costs one request. The key stands in a header that is marked as secret and in no error. What is thrown away,
//! the reply or the attempt, closes the connection, and the provider stops.

use std::sync::Arc;

use async_trait::async_trait;
use domain::ai::Provider;
use futures_util::StreamExt;
use futures_util::stream::once;
use ports::ai::{
    AiProvider, CallContent, CallHold, CommentSink, Framing, ProviderCall, ProviderFault, Reply, ReplyPiece,
    ReplyPieces, Unanswered,
};
use ports::clock::Clock;
use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;
use tracing::warn;

use super::anthropic::Anthropic;
use super::dialect::{Awaited, Dialect, Heard, Misheard, Shown, hear};
use super::faults;
use super::gemini::Gemini;
use super::openai::OpenAi;
use super::redaction::Redactor;
use super::reply_headers;
use super::streaming::{Comments, Streaming, fault_of};
use super::wire::{Answered, Looks, Timeouts, Wire};
use crate::addresses::leaves_unsealed;

/// The content type of a stream of events.
const EVENTS: &str = "text/event-stream";

/// Where a provider is, and what it takes us for.
#[derive(Clone, Copy)]
pub struct Access<'a> {
    pub base_url: &'a str,
    pub api_key: &'a str,
}

#[derive(Debug, Error)]
pub enum AccessRefused {
    #[error("the base URL of {0} is no http or https address")]
    Url(Provider),
    #[error("the key of {0} has characters that no header can carry")]
    Key(Provider),
    #[error("no client for {0}: {1}")]
    Client(Provider, String),
}

pub struct HttpProvider {
    dialect: Box<dyn Dialect>,
    wire: Wire,
    clock: Arc<dyn Clock>,
    redactor: Arc<Redactor>,
}

/// A reply without its hold.
struct Begun {
    request_id: Option<String>,
    model: Option<String>,
    content_type: String,
    headers: Vec<(String, String)>,
    pieces: ReplyPieces,
}

impl HttpProvider {
    pub fn new(
        provider: Provider,
        access: Access<'_>,
        timeouts: Timeouts,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AccessRefused> {
        let dialect: Box<dyn Dialect> = match provider {
            Provider::OpenAi => Box::new(OpenAi),
            Provider::Claude => Box::new(Anthropic),
            Provider::Gemini => Box::new(Gemini),
        };
        let base = Url::parse(access.base_url).map_err(|_| AccessRefused::Url(provider))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(AccessRefused::Url(provider));
        }
        if leaves_unsealed(&base) {
            warn!(%provider, "the key of this provider goes over an address without TLS");
        }
        let (name, before) = dialect.credential();
        let mut key =
            HeaderValue::try_from(format!("{before}{}", access.api_key)).map_err(|_| AccessRefused::Key(provider))?;
        key.set_sensitive(true);
        let wire = Wire::new(base, (HeaderName::from_static(name), key), timeouts)
            .map_err(|error| AccessRefused::Client(provider, error.to_string()))?;
        let redactor = Arc::new(Redactor::new(access.api_key));
        Ok(Self { dialect, wire, clock, redactor })
    }

    async fn attempt(&self, call: &ProviderCall, comments: Comments) -> Result<Begun, ProviderFault> {
        let outgoing = self.dialect.outgoing(call)?;
        let awaited = outgoing.awaited;
        let answered = self.wire.send(outgoing).await?;
        if !(200..300).contains(&answered.status) {
            return Err(self.refused(answered).await);
        }
        let content_type = text_of(&answered.headers, CONTENT_TYPE.as_str()).unwrap_or_default();
        let named = self.dialect.request_id_header().and_then(|name| text_of(&answered.headers, name));
        let mut headers = reply_headers::for_callers(&answered.headers);
        self.redactor.headers(&mut headers);
        let begun = match awaited {
            // A page is what stands before the provider, and never what a model says.
            _ if is_of(&content_type, "text/html") => return Err(wrong_type(&content_type)),
            Awaited::Whole => self.awaited_whole(call, answered, content_type).await?,
            Awaited::Stream(framing) => self.streamed(call, answered, content_type, framing, comments).await?,
        };
        Ok(Begun { request_id: named.or(begun.request_id), headers, ..begun })
    }

    async fn send_once(&self, hold: CallHold, call: &ProviderCall, comments: Comments) -> Result<Reply, Unanswered> {
        match self.attempt(call, comments).await {
            Ok(Begun { request_id, model, content_type, headers, pieces }) => {
                Ok(Reply { hold, request_id, model, content_type, headers, pieces })
            }
            Err(fault) => Err((hold, self.redactor.fault(fault))),
        }
    }

    async fn refused(&self, answered: Answered) -> ProviderFault {
        let Answered { status, headers, body } = answered;
        let body = body.refusal().await;
        let told = self.dialect.told(status, &body);
        faults::fault(status, &headers, body, told, self.clock.now())
    }

    /// What was to come whole. A native caller gets events too, where the provider sends them.
    async fn awaited_whole(
        &self,
        call: &ProviderCall,
        answered: Answered,
        content_type: String,
    ) -> Result<Begun, ProviderFault> {
        if is_native(call) && is_of(&content_type, EVENTS) {
            return self.events(call, answered, content_type, Framing::ServerSentEvents, None).await;
        }
        self.whole(call, answered, content_type).await
    }

    async fn whole(
        &self,
        call: &ProviderCall,
        answered: Answered,
        content_type: String,
    ) -> Result<Begun, ProviderFault> {
        let body = answered.body.whole().await?;
        if body.trim_ascii().is_empty() {
            return Err(ProviderFault::NotUnderstood("it is empty".to_owned()));
        }
        let is_native = is_native(call);
        let heard = hear(self.dialect.speech(call).as_mut(), &body, is_native).and_then(|heard| {
            // What is not understood cannot be translated into the caller's dialect.
            let is_translatable = is_native || !heard.is_unread;
            if is_translatable { Ok(heard) } else { Err(Misheard::Nonsense("it is no answer of a model's")) }
        });
        let heard = heard.map_err(|misheard| fault_of(misheard, &body))?;
        let Heard { deltas, usage, request_id, model, shown, is_unread, .. } = heard;
        let frame = match (is_native, shown) {
            (false, _) | (_, Shown::Nothing) => Vec::new(),
            (true, Shown::AsItCame) => body,
            (true, Shown::Data(changed)) => changed.into_bytes(),
        };
        let piece = ReplyPiece { frame, deltas, usage, is_last: true, unread: u64::from(is_unread) };
        let pieces: ReplyPieces = Box::pin(once(std::future::ready(Ok(piece))));
        Ok(Begun { request_id, model, content_type, headers: Vec::new(), pieces })
    }

    /// What was to come as a stream, whatever it is declared as.
    async fn streamed(
        &self,
        call: &ProviderCall,
        mut answered: Answered,
        content_type: String,
        framing: Framing,
        comments: Comments,
    ) -> Result<Begun, ProviderFault> {
        let looks = if is_of(&content_type, EVENTS) { Looks::Events } else { answered.body.looks().await? };
        match (looks, framing) {
            (Looks::Events, Framing::ServerSentEvents) | (Looks::List, Framing::JsonArray) => {
                self.events(call, answered, content_type, framing, comments).await
            }
            // One answer, or an error under a status of success.
            (Looks::Object | Looks::List, _) => self.whole(call, answered, content_type).await,
            (Looks::Events | Looks::Unknown, _) => Err(wrong_type(&content_type)),
        }
    }

    async fn events(
        &self,
        call: &ProviderCall,
        answered: Answered,
        content_type: String,
        framing: Framing,
        comments: Comments,
    ) -> Result<Begun, ProviderFault> {
        let speech = self.dialect.speech(call);
        let mut streaming = Streaming::begin(answered.body, framing, speech, is_native(call), comments).await?;
        let (request_id, model) = (streaming.request_id.take(), streaming.model.take());
        let redactor = Arc::clone(&self.redactor);
        let pieces = streaming.pieces().map(move |piece| piece.map_err(|fault| redactor.fault(fault)));
        Ok(Begun { request_id, model, content_type, headers: Vec::new(), pieces: Box::pin(pieces) })
    }
}

#[async_trait]
impl AiProvider for HttpProvider {
    async fn send(&self, hold: CallHold, call: &ProviderCall) -> Result<Reply, Unanswered> {
        self.send_once(hold, call, None).await
    }

    async fn send_with_comments(
        &self,
        hold: CallHold,
        call: &ProviderCall,
        comments: Arc<dyn CommentSink>,
    ) -> Result<Reply, Unanswered> {
        self.send_once(hold, call, Some(comments)).await
    }

    fn is_sandbox(&self) -> bool {
        false
    }
}

const fn is_native(call: &ProviderCall) -> bool {
    matches!(call.content, CallContent::Native(_))
}

fn text_of(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// Whether a content type is this one, whatever its parameters.
fn is_of(content_type: &str, expected: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(expected)
}

fn wrong_type(content_type: &str) -> ProviderFault {
    let shown: String = content_type.chars().take(100).collect();
    ProviderFault::NotUnderstood(format!("its content type is `{shown}`"))
}
