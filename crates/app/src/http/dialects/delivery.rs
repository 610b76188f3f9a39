//! Delivery: turns the pieces of an answer into the response to a request, whatever dialect a renderer writes.
//!
//! Promises: a call runs in a task of its own, so a client that disconnects never leaves a call half done. A failure
//! before the response head is sent is an error with its own status; `streams` says how long the head of a stream
//! waits. A stream is rendered in a task and read from a bounded channel; one that is not read is cut, and never ends
//! as if it were complete. When the client has gone, the answer is dropped too, and the service drains and bills it;
//! for a sink that wants the rest it is rendered to its end all the same. An answer in one piece is collected to its
//! end in any case.
//!
//! Costs: a task and a channel a call. Calls under way are bounded, and so is the time that a client may leave a stream
//! unread.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use actix_web::web::Bytes;
use domain::ai::ProviderId;
use futures_util::stream::unfold;
use services::ai::AiService;
use services::ai::answers::{AnswerHead, AnswerPiece, CallAnswer};
use services::ai::calls::Call;
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::Instrument;

use super::provider_headers::shown;
use super::refusals::{UnansweredCall, not_in_the_books, of_break_off, unanswered};
use super::rendering::{AnswerEnd, AnswerRenderer};
use crate::http::problem::Problem;
use crate::http::spawn::runtime;
use client::ClientReader;

/// How many calls may be under way in this process, including answers that are being read.
const CALLS_AT_MOST: usize = 4_000;
static PLACES: Semaphore = Semaphore::const_new(CALLS_AT_MOST);

static CALL_ID: HeaderName = HeaderName::from_static("x-product-base-call-id");
static MAX_TOKENS: HeaderName = HeaderName::from_static("x-product-base-max-tokens");
static COST_USD: HeaderName = HeaderName::from_static("x-product-base-cost-usd");

mod client;

/// The status and the headers of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryHeading {
    pub status: u16,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Stores what is rendered, to replay it later. It receives only answers that have begun, never refusals.
pub trait RenderedSink: Send + Sync {
    fn begin(&mut self, heading: &DeliveryHeading);
    fn write(&mut self, bytes: &Bytes);
    /// Called once, after the last byte. `is_whole` is false for an answer that broke off or was not wanted any more.
    fn end(&mut self, is_whole: bool);
    /// Whether it wants the rest when the client has gone.
    fn wants_the_rest(&self) -> bool;
}

/// Stores nothing.
pub struct AnswerNotKept;

impl RenderedSink for AnswerNotKept {
    fn begin(&mut self, _: &DeliveryHeading) {}

    fn write(&mut self, _: &Bytes) {}

    fn end(&mut self, _: bool) {}

    fn wants_the_rest(&self) -> bool {
        false
    }
}

/// How an answer is rendered, and where it is stored.
pub struct AnswerWriting {
    pub renderer: Box<dyn AnswerRenderer>,
    pub is_streamed: bool,
    /// The providers in whose own format the call is, so that their refusals are passed on unchanged.
    pub native: Vec<ProviderId>,
    pub sink: Box<dyn RenderedSink>,
}

/// An answer that has begun.
struct Begun {
    heading: DeliveryHeading,
    body: Body,
}

enum Body {
    Whole(Bytes),
    Stream(ClientReader),
}

/// Makes the call that `prepare` returns, in a task of its own, and returns its response.
pub async fn deliver<F>(ai: Arc<AiService>, prepare: F) -> Result<HttpResponse, Problem>
where
    F: Future<Output = Result<(Call, AnswerWriting), Problem>> + Send + 'static,
{
    let Ok(place) = PLACES.try_acquire() else {
        return Err(Problem::unavailable("busy", "Too many calls are under way. Nothing was done; send it again."));
    };
    let work = async move {
        let (call, writing) = prepare.await?;
        begin(&ai, call, writing, place).await
    };
    match runtime().spawn(work.in_current_span()).await {
        Ok(Ok(begun)) => Ok(begun.answer()),
        Ok(Err(UnansweredCall::Problem(problem))) => Err(problem),
        Ok(Err(UnansweredCall::InItsWords(refusal))) => {
            let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
            let mut response = HttpResponse::build(status);
            for header in shown(&refusal.headers, None) {
                response.append_header(header);
            }
            Ok(response.content_type("application/json").body(refusal.body))
        }
        Err(broken) => Err(Problem::internal(&broken)),
    }
}

async fn begin(
    ai: &Arc<AiService>,
    call: Call,
    writing: AnswerWriting,
    place: SemaphorePermit<'static>,
) -> Result<Begun, UnansweredCall> {
    let native = writing.native.clone();
    let started = ai.start(call).await.map_err(|error| unanswered(error, &native))?;
    if writing.is_streamed {
        return streams::begin(started, writing, ai.stream_pace(), place).await;
    }
    let answer = started.answer().await.map_err(|error| unanswered(error, &native))?;
    whole(answer, writing).await
}

/// Collects an answer to its end.
async fn whole(answer: CallAnswer, writing: AnswerWriting) -> Result<Begun, UnansweredCall> {
    let CallAnswer { head, mut pieces } = answer;
    let AnswerWriting { mut renderer, mut sink, .. } = writing;
    let mut body = renderer.begin(&head);
    let (mut is_cut, mut receipt) = (false, None);
    while let Some(piece) = pieces.recv().await {
        match piece {
            AnswerPiece::Piece(piece) => body.extend(renderer.piece(&piece)),
            AnswerPiece::Cut => is_cut = true,
            AnswerPiece::Broken(why) => return Err(of_break_off(head.provider.id.as_str(), &why).into()),
            AnswerPiece::Settled(settled) => receipt = Some(settled),
        }
    }
    let Some(receipt) = receipt else { return Err(not_in_the_books().into()) };
    body.extend(renderer.end(if is_cut { AnswerEnd::Cut(Some(&receipt)) } else { AnswerEnd::Settled(&receipt) }));
    let mut heading = heading(&head, &renderer.content_type(&head));
    if let Some(cost) = receipt.cost.and_then(|cost| HeaderValue::from_str(&cost.to_string()).ok()) {
        heading.headers.push((COST_USD.clone(), cost));
    }
    let body = Bytes::from(body);
    sink.begin(&heading);
    sink.write(&body);
    sink.end(true);
    Ok(Begun { heading, body: Body::Whole(body) })
}

fn heading(head: &AnswerHead, content_type: &str) -> DeliveryHeading {
    let text = |value: &str| HeaderValue::from_str(value).ok();
    let mut headers = vec![(CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    headers.extend(text(content_type).map(|value| (CONTENT_TYPE, value)));
    headers.extend(text(&head.call_id.to_string()).map(|value| (CALL_ID.clone(), value)));
    let named = head.request_id.as_deref().filter(|_| !head.is_sandbox);
    headers.extend(shown(&head.headers, named));
    headers.extend(head.lowered_to.map(|most| (MAX_TOKENS.clone(), HeaderValue::from(most))));
    DeliveryHeading { status: StatusCode::OK.as_u16(), headers }
}

impl Begun {
    fn answer(self) -> HttpResponse {
        let mut response = HttpResponse::build(StatusCode::from_u16(self.heading.status).unwrap_or(StatusCode::OK));
        for header in self.heading.headers {
            response.insert_header(header);
        }
        match self.body {
            Body::Whole(bytes) => response.body(bytes),
            Body::Stream(pieces) => response.streaming(unfold(pieces, |mut pieces| async move {
                pieces.next().await.map(|bytes| (bytes.map_err(std::io::Error::other), pieces))
            })),
        }
    }
}

mod streams;
#[cfg(test)]
mod tests;
