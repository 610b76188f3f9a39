//! One attempt at a provider over HTTP: sends the dialect's request and returns the reply from its first piece on.
//!
//! A call costs one request. The API key appears in no error, and in a header it is marked as sensitive. Dropping the reply
//! or the attempt closes the connection, and the provider stops generating.

use std::sync::Arc;

use async_trait::async_trait;
use domain::ai::{Dialect, ProviderProfile};
use futures_util::StreamExt;
use futures_util::stream::iter;
use ports::ai::{
    AiProvider, CallContent, CallReservation, CallUnanswered, CommentSink, ProviderCall, ProviderFault, ProviderReply,
    ReplyPiece, ReplyPieces, StreamFraming,
};
use ports::clock::Clock;
use reqwest::header::{CONTENT_TYPE, HeaderMap};

use super::access::{AccessRefused, ProviderAccess, RequestBase};
use super::anthropic::Anthropic;
use super::dialect::{Awaited, DialectFormat, ParseError, Parsed, ReportedError, parse};
use super::errors;
use super::gemini::Gemini;
use super::openai::OpenAi;
use super::redaction::Redactor;
use super::reply_headers;
use super::streaming::{Comments, Streaming, reported_error};
use super::wire::{Answered, Looks, ProviderTimeouts, Wire};

/// The content type of a stream of events.
const EVENTS: &str = "text/event-stream";

pub struct HttpProvider {
    dialect: Box<dyn DialectFormat>,
    wire: Wire,
    clock: Arc<dyn Clock>,
    redactor: Arc<Redactor>,
}

/// A reply without its call reservation.
struct Begun {
    request_id: Option<String>,
    model: Option<String>,
    content_type: String,
    headers: Vec<(String, String)>,
    pieces: ReplyPieces,
}

impl HttpProvider {
    pub fn new(
        profile: ProviderProfile,
        access: ProviderAccess<'_>,
        timeouts: ProviderTimeouts,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AccessRefused> {
        let dialect: Box<dyn DialectFormat> = match profile.dialect {
            Dialect::OpenAiChat => Box::new(OpenAi),
            Dialect::Anthropic => Box::new(Anthropic),
            Dialect::Gemini => Box::new(Gemini),
        };
        let base = RequestBase::new(profile, access)?;
        let wire = Wire::new(base, timeouts).map_err(|error| AccessRefused::Client(profile.id, error.to_string()))?;
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
            // An HTML page comes from a proxy before the provider, never from a model.
            _ if is_of(&content_type, "text/html") => return Err(wrong_type(&content_type)),
            Awaited::Whole => self.awaited_whole(call, answered, content_type).await?,
            Awaited::Stream(framing) => self.streamed(call, answered, content_type, framing, comments).await?,
        };
        Ok(Begun { request_id: named.or(begun.request_id), headers, ..begun })
    }

    async fn send_once(
        &self,
        hold: CallReservation,
        call: &ProviderCall,
        comments: Comments,
    ) -> Result<ProviderReply, CallUnanswered> {
        match self.attempt(call, comments).await {
            Ok(Begun { request_id, model, content_type, headers, pieces }) => {
                Ok(ProviderReply { hold, request_id, model, content_type, headers, pieces })
            }
            Err(fault) => Err((hold, self.redactor.fault(fault))),
        }
    }

    async fn refused(&self, answered: Answered) -> ProviderFault {
        let Answered { status, headers, body } = answered;
        let body = body.refusal().await;
        let details = self.dialect.error_details(status, &body);
        errors::fault(status, &headers, body, details, self.clock.now())
    }

    /// Reads a reply that was requested whole. A native caller also gets events where the provider sends them.
    async fn awaited_whole(
        &self,
        call: &ProviderCall,
        answered: Answered,
        content_type: String,
    ) -> Result<Begun, ProviderFault> {
        if is_native(call) && is_of(&content_type, EVENTS) {
            return self.events(call, answered, content_type, StreamFraming::ServerSentEvents, None).await;
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
        let parsed = parse(self.dialect.parser(call).as_mut(), &body, is_native);
        let failed = match parsed {
            // A reply that is not understood cannot be translated into the caller's dialect.
            Ok(Parsed { is_unread: true, usage, .. }) if !is_native => {
                ReportedError { usage, ..reported_error(ParseError::Nonsense("it is no answer of a model's"), &body) }
            }
            Ok(Parsed { deltas, hidden_tokens, usage, request_id, model, is_unread, .. }) => {
                let frame = if is_native { body } else { Vec::new() };
                let piece =
                    ReplyPiece { frame, deltas, hidden_tokens, usage, is_last: true, unread: u64::from(is_unread) };
                let pieces: ReplyPieces = Box::pin(iter([Ok(piece)]));
                return Ok(Begun { request_id, model, content_type, headers: Vec::new(), pieces });
            }
            Err(error) => reported_error(error, &body),
        };
        match failed {
            ReportedError { fault, usage: None } => Err(fault),
            // The provider bills the usage that it reports, so its answer has begun and is not sent again.
            ReportedError { fault, usage } => {
                let piece = ReplyPiece { usage, ..ReplyPiece::default() };
                let pieces: ReplyPieces = Box::pin(iter([Ok(piece), Err(self.redactor.fault(fault))]));
                Ok(Begun { request_id: None, model: None, content_type, headers: Vec::new(), pieces })
            }
        }
    }

    /// Reads a reply that was requested as a stream, whatever its content type.
    async fn streamed(
        &self,
        call: &ProviderCall,
        mut answered: Answered,
        content_type: String,
        framing: StreamFraming,
        comments: Comments,
    ) -> Result<Begun, ProviderFault> {
        let looks = if is_of(&content_type, EVENTS) { Looks::Events } else { answered.body.looks().await? };
        match (looks, framing) {
            (Looks::Events, StreamFraming::ServerSentEvents) | (Looks::List, StreamFraming::JsonArray) => {
                self.events(call, answered, content_type, framing, comments).await
            }
            // One whole answer, or an error with a success status.
            (Looks::Object | Looks::List, _) => self.whole(call, answered, content_type).await,
            (Looks::Events | Looks::Unknown, _) => Err(wrong_type(&content_type)),
        }
    }

    async fn events(
        &self,
        call: &ProviderCall,
        answered: Answered,
        content_type: String,
        framing: StreamFraming,
        comments: Comments,
    ) -> Result<Begun, ProviderFault> {
        let parser = self.dialect.parser(call);
        let mut streaming = Streaming::begin(answered.body, framing, parser, is_native(call), comments).await?;
        let (request_id, model) = (streaming.request_id.take(), streaming.model.take());
        let redactor = Arc::clone(&self.redactor);
        let pieces = streaming.pieces().map(move |piece| piece.map_err(|fault| redactor.fault(fault)));
        Ok(Begun { request_id, model, content_type, headers: Vec::new(), pieces: Box::pin(pieces) })
    }
}

#[async_trait]
impl AiProvider for HttpProvider {
    async fn send(&self, hold: CallReservation, call: &ProviderCall) -> Result<ProviderReply, CallUnanswered> {
        self.send_once(hold, call, None).await
    }

    async fn send_with_comments(
        &self,
        hold: CallReservation,
        call: &ProviderCall,
        comments: Arc<dyn CommentSink>,
    ) -> Result<ProviderReply, CallUnanswered> {
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

/// Whether a content type is `expected`, whatever its parameters.
fn is_of(content_type: &str, expected: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(expected)
}

fn wrong_type(content_type: &str) -> ProviderFault {
    let shown: String = content_type.chars().take(100).collect();
    ProviderFault::NotUnderstood(format!("its content type is `{shown}`"))
}
