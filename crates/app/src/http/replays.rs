//! Replays: a paid call that comes again under its `Idempotency-Key` gets the first one's answer. So does the retry of an
//! SDK, which sends no key, where the client of the same call has left without the answer.
//!
//! Byte for byte, streams too: one that still runs is read along from its start. What is sent again is marked
//! `Idempotency-Replayed: true`.

mod delivered;
mod retries;

use std::fmt::Write;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use adapters::digest::{fingerprint, fingerprint_of_parts};
use domain::api_keys::ApiKeyId;
use domain::idempotency::IdempotencyKey;
use domain::identity::{Caller, CallerRights, Credential};
use domain::replays::{Repeat, Unkept as NotKept};
use domain::usage::HoldId;
use domain::users::UserId;
use futures_util::stream::unfold;
use metrics::counter;
use ports::idempotency::AnswerClaim;
use ports::replays::KeptAnswer;
use services::ai::calls::Call;
use services::idempotency::KeyConflict;
use services::replays::{Asked, Heading, Listener, ReplayError, ReplayService, Standing, Stood, Ticket};
use services::usage::commands::UsageError;
use tokio::time::timeout;

use self::delivered::watched;
use self::retries::Retries;
use super::dialects::delivery::{Heading as Head, RenderedSink, Unkept, Writing};
use super::dialects::refusals::no_retry;
use super::once::{now_or_again, read};
use super::problem::{Problem, sentence};
use crate::telemetry::calls::SDK_RETRIES;

/// How long a stream that is read along is silent at most.
const PING_EVERY: Duration = Duration::from_secs(10);
/// The longest route that a row takes.
const ROUTE_MAX: usize = 150;

/// By what a request is known when it comes again.
#[derive(Clone)]
pub struct RepeatSigns {
    service: Option<Arc<ReplayService>>,
    repeat: Result<Option<Repeat>, Problem>,
    /// Whether whoever asks tries again by itself, so that our attempts would multiply its own.
    retried_by_caller: bool,
    caller: UserId,
    rights: CallerRights,
    api_key_id: Option<ApiKeyId>,
    route: String,
    /// What of the address besides the path decides on the answer.
    query: String,
}

impl RepeatSigns {
    pub fn of(request: &HttpRequest, caller: &Caller) -> Self {
        let retries = Retries::of(request.headers());
        if retries.count > 0 {
            counter!(SDK_RETRIES).increment(1);
        }
        let repeat = read(request).map(|key| Repeat::of(key.into_key(), retries.is_sdk, retries.count));
        let api_key_id = match &caller.credential {
            Credential::Key { id, .. } => Some(ApiKeyId(*id)),
            Credential::Token => None,
        };
        Self {
            service: request.app_data::<Data<ReplayService>>().map(|service| Arc::clone(service)),
            repeat,
            retried_by_caller: retries.is_counted,
            caller: caller.user_id,
            rights: CallerRights::of(caller),
            api_key_id,
            route: route(request),
            query: query(request.query_string()),
        }
    }

    /// The call that this body asks for; none where it is not kept.
    fn asked(self, body: &[u8]) -> Result<Option<(Arc<ReplayService>, Asked)>, Problem> {
        let (Some(service), Some(repeat)) = (self.service, self.repeat?) else { return Ok(None) };
        // A body may be large, so its digests are made without a copy of it.
        let content = [self.query.as_bytes(), b"\n", body];
        let key = match &repeat {
            Repeat::Keyed(key) => key.clone(),
            Repeat::OfSdk { .. } => key_of_sdk(self.api_key_id, content)?,
        };
        let (caller, route, rights) = (self.caller, self.route, self.rights);
        let claim = AnswerClaim { caller, route, key, fingerprint: fingerprint_of_parts(content), rights };
        Ok(Some((service, Asked { claim, repeat })))
    }
}

/// What stands for the key that an SDK does not send: the API key and what is asked. It is another digest than the one that
/// is stored beside the answer, so that the answer is sealed by something that the database does not have.
fn key_of_sdk(api_key_id: Option<ApiKeyId>, content: [&[u8]; 3]) -> Result<IdempotencyKey, Problem> {
    let api_key_id = api_key_id.map(|id| id.0).unwrap_or_default();
    let begin = [b"sdk\0".as_slice(), api_key_id.as_bytes()];
    let digest = fingerprint_of_parts(begin.into_iter().chain(content));
    IdempotencyKey::parse(&format!("sdk {}", in_hex(&digest))).map_err(|why| Problem::internal(&why))
}

fn in_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text cannot fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// Method and path; of a path too long for a row, a digest.
fn route(request: &HttpRequest) -> String {
    let route = format!("{} {}", request.method(), request.path());
    if route.len() <= ROUTE_MAX {
        route
    } else {
        format!("{} {}", request.method(), in_hex(&fingerprint(route.as_bytes())))
    }
}

/// The query without the credential that Gemini's clients may send there.
fn query(query: &str) -> String {
    let pairs = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name != "key");
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// How a call that is to be made is kept.
pub struct Keeping {
    ticket: Option<Ticket>,
    retried_by_caller: bool,
}

impl Keeping {
    /// The same call, kept.
    pub async fn of(
        self,
        prepare: impl Future<Output = Result<(Call, Writing), Problem>>,
    ) -> Result<(Call, Writing), Problem> {
        let (call, writing) = prepare.await?;
        let hold_id: Option<HoldId> = self.ticket.as_ref().map(Ticket::hold_id);
        let sink: Box<dyn RenderedSink> = match self.ticket {
            Some(ticket) => Box::new(Kept(ticket)),
            None => Box::new(Unkept),
        };
        Ok((Call { hold_id, retried_by_caller: self.retried_by_caller, ..call }, Writing { sink, ..writing }))
    }
}

/// Makes the call, or answers as it was answered, or is being answered now.
pub async fn once<F>(signs: RepeatSigns, body: &Bytes, make: impl FnOnce(Keeping) -> F) -> Result<HttpResponse, Problem>
where
    F: Future<Output = Result<HttpResponse, Problem>>,
{
    let retried_by_caller = signs.retried_by_caller;
    let keeping = |ticket| Keeping { ticket, retried_by_caller };
    let Some((service, asked)) = signs.asked(body)? else { return make(keeping(None)).await };
    let Stood { standing, mut waiting } = service.stand(asked).await?;
    let answered = match standing {
        Standing::Mine(ticket) => {
            let taken = ticket.taken();
            let answered = make(keeping(Some(ticket))).await;
            taken.tell();
            answered
        }
        Standing::NotKept => make(keeping(None)).await,
        Standing::Kept(answer) => Ok(again(answer)),
        Standing::Running(listener) => along(listener),
    };
    match answered {
        Ok(response) => Ok(watched(response, waiting)),
        // A refusal says itself why there is no answer.
        Err(problem) => {
            waiting.served();
            Err(problem)
        }
    }
}

/// Keeps what is rendered.
struct Kept(Ticket);

impl RenderedSink for Kept {
    fn begin(&mut self, heading: &Head) {
        let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let content_type = heading.headers.iter().find(|(name, _)| name == CONTENT_TYPE);
        let others = heading.headers.iter().filter(|(name, _)| name.as_str().starts_with("x-"));
        self.0.begin(Heading {
            status: heading.status,
            content_type: content_type.map(|(_, value)| text(value)).unwrap_or_default(),
            headers: others.map(|(name, value)| (name.to_string(), text(value))).collect(),
        });
    }

    fn write(&mut self, bytes: &Bytes) {
        self.0.write(bytes);
    }

    fn end(&mut self, is_whole: bool) {
        self.0.end(is_whole);
    }

    fn wants_the_rest(&self) -> bool {
        self.0.wants_the_rest()
    }
}

fn again(answer: KeptAnswer) -> HttpResponse {
    let KeptAnswer { status, content_type, headers, body } = answer;
    beginning(Heading { status, content_type, headers }).body(body)
}

/// Reads a running answer along.
fn along(listener: Listener) -> Result<HttpResponse, Problem> {
    if let Some(answer) = listener.whole() {
        return Ok(again(answer));
    }
    let heading = listener.heading().ok_or_else(|| Problem::from(ReplayError::Unkept(NotKept::Lost)))?;
    let is_events = heading.content_type.starts_with("text/event-stream");
    let chunks = unfold(listener, move |mut listener| async move {
        let chunk = match timeout(PING_EVERY, listener.chunk()).await {
            Ok(chunk) => chunk?,
            // A blank line says nothing in any dialect of events.
            Err(_) if is_events => return Some((Ok(Bytes::from_static(b"\n\n")), listener)),
            Err(_) => listener.chunk().await?,
        };
        // What cannot be followed any more breaks off, so that nobody takes it for whole.
        Some((chunk.map(Bytes::from_owner).map_err(std::io::Error::other), listener))
    });
    Ok(beginning(heading).streaming(chunks))
}

fn beginning(heading: Heading) -> HttpResponseBuilder {
    let Heading { status, content_type, headers } = heading;
    let mut response = now_or_again(StatusCode::from_u16(status).unwrap_or(StatusCode::OK), true);
    response.content_type(content_type);
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.insert_header((name, value));
        }
    }
    response
}

impl From<ReplayError> for Problem {
    fn from(error: ReplayError) -> Self {
        let told = sentence(&error.to_string());
        match error {
            ReplayError::OtherBody => KeyConflict::OtherBody.into(),
            ReplayError::InFlight => KeyConflict::InFlight.into(),
            ReplayError::BeyondRights => KeyConflict::BeyondRights.into(),
            ReplayError::Unkept(NotKept::Lost) => no_retry(Self::new(StatusCode::CONFLICT, "answer_lost", told)),
            ReplayError::Unkept(NotKept::TooLong) => no_retry(Self::new(StatusCode::CONFLICT, "answer_too_long", told)),
            ReplayError::Busy => Self::unavailable("busy", format!("{told} Nothing was done; send it again.")),
            ReplayError::UnknownUser => UsageError::UnknownUser.into(),
            ReplayError::Store(error) => error.into(),
        }
    }
}
