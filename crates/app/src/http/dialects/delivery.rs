//! Delivery: from the pieces of an answer to the answer of a request, whatever dialect a renderer writes.
//!
//! Promises: a call runs in a task of its own, so a client that hangs up never leaves one half made. What fails before the
//! head of the answer goes out is an error with its own status; how long the head of a stream waits is in `streams`. A
//! stream is rendered in a task and read from a bounded channel; one that is left unread is cut, and never ends as if it were
//! whole. When the client has gone, the answer is let go too, and the service drains
//! and bills it; a sink that wants the rest has it rendered to its end all the same. An answer in one piece is collected
//! to its end, whoever waits.
//!
//! Costs: a task and a channel a call. Calls under way are bounded, and so is the time that a client may leave a stream
//! unread.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use actix_web::web::Bytes;
use domain::ai::Provider;
use futures_util::stream::unfold;
use services::ai::AiService;
use services::ai::answers::{Answer, AnswerHead, AnswerPiece};
use services::ai::calls::Call;
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::Instrument;

use super::provider_headers::shown;
use super::refusals::{Unanswered, not_in_the_books, of_break_off, unanswered};
use super::rendering::{End, Renderer};
use crate::http::detached::runtime;
use crate::http::problem::Problem;
use client::ClientReader;

/// How many calls may be under way in this process, answers that are being read included.
const CALLS_AT_MOST: usize = 4_000;
static PLACES: Semaphore = Semaphore::const_new(CALLS_AT_MOST);

static CALL_ID: HeaderName = HeaderName::from_static("x-product-base-call-id");
static MAX_TOKENS: HeaderName = HeaderName::from_static("x-product-base-max-tokens");
static COST_USD: HeaderName = HeaderName::from_static("x-product-base-cost-usd");

mod client;

/// Everything of an answer before its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heading {
    pub status: u16,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Takes what is rendered, to give it again later. Only answers that have begun get here, never refusals.
pub trait RenderedSink: Send + Sync {
    fn begin(&mut self, heading: &Heading);
    fn write(&mut self, bytes: &Bytes);
    /// Once, after the last byte. Not whole is what broke off, or what nobody wanted any more.
    fn end(&mut self, is_whole: bool);
    /// Whether it wants the rest when the client has gone.
    fn wants_the_rest(&self) -> bool;
}

/// Nobody asks again.
pub struct Unkept;

impl RenderedSink for Unkept {
    fn begin(&mut self, _: &Heading) {}

    fn write(&mut self, _: &Bytes) {}

    fn end(&mut self, _: bool) {}

    fn wants_the_rest(&self) -> bool {
        false
    }
}

/// How an answer is written, and for whom.
pub struct Writing {
    pub renderer: Box<dyn Renderer>,
    pub is_streamed: bool,
    /// The provider whose words the call is in, so that its refusals pass as they are.
    pub native: Option<Provider>,
    pub sink: Box<dyn RenderedSink>,
}

/// An answer that has begun.
struct Begun {
    heading: Heading,
    body: Body,
}

enum Body {
    Whole(Bytes),
    Stream(ClientReader),
}

/// Makes the call that `prepare` comes to, in a task of its own, and answers with what comes back.
pub async fn deliver<F>(ai: Arc<AiService>, prepare: F) -> Result<HttpResponse, Problem>
where
    F: Future<Output = Result<(Call, Writing), Problem>> + Send + 'static,
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
        Ok(Err(Unanswered::Problem(problem))) => Err(problem),
        Ok(Err(Unanswered::InItsWords(refusal))) => {
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
    writing: Writing,
    place: SemaphorePermit<'static>,
) -> Result<Begun, Unanswered> {
    let native = writing.native;
    let started = ai.start(call).await.map_err(|error| unanswered(error, native))?;
    if writing.is_streamed {
        return streams::begin(started, writing, ai.stream_pace(), place).await;
    }
    let answer = started.answer().await.map_err(|error| unanswered(error, native))?;
    whole(answer, writing).await
}

/// Collects an answer to its end.
async fn whole(answer: Answer, writing: Writing) -> Result<Begun, Unanswered> {
    let Answer { head, mut pieces } = answer;
    let Writing { mut renderer, mut sink, .. } = writing;
    let mut body = renderer.begin(&head);
    let (mut is_cut, mut receipt) = (false, None);
    while let Some(piece) = pieces.recv().await {
        match piece {
            AnswerPiece::Piece(piece) => body.extend(renderer.piece(&piece)),
            AnswerPiece::Cut => is_cut = true,
            AnswerPiece::Broken(why) => return Err(of_break_off(head.provider.as_str(), &why).into()),
            AnswerPiece::Settled(settled) => receipt = Some(settled),
        }
    }
    let Some(receipt) = receipt else { return Err(not_in_the_books().into()) };
    body.extend(renderer.end(if is_cut { End::Cut(Some(&receipt)) } else { End::Settled(&receipt) }));
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

fn heading(head: &AnswerHead, content_type: &str) -> Heading {
    let text = |value: &str| HeaderValue::from_str(value).ok();
    let mut headers = vec![(CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    headers.extend(text(content_type).map(|value| (CONTENT_TYPE, value)));
    headers.extend(text(&head.call_id.to_string()).map(|value| (CALL_ID.clone(), value)));
    let named = head.request_id.as_deref().filter(|_| !head.is_sandbox);
    headers.extend(shown(&head.headers, named));
    headers.extend(head.lowered_to.map(|most| (MAX_TOKENS.clone(), HeaderValue::from(most))));
    Heading { status: StatusCode::OK.as_u16(), headers }
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
