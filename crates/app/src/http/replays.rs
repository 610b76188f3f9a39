//! Replays: a paid call that is repeated with its `Idempotency-Key` gets the first response. So does the retry of an
//! SDK, which sends no key, if the client of the same call disconnected without the response.
//!
//! Byte for byte, streams too: a running one is followed from its start. A repeated response is marked
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
use domain::replays::{NotReplayable as NotKept, RetryKind};
use domain::usage::HoldId;
use domain::users::UserId;
use futures_util::stream::unfold;
use metrics::counter;
use ports::idempotency::AnswerClaim;
use ports::replays::KeptAnswer;
use services::ai::calls::Call;
use services::idempotency::KeyConflict;
use services::replays::{
    AnswerHeading, AnswerListener, CallClaim, ClaimState, ReplayError, ReplayRequest, ReplayService, RetryPlace,
};
use services::usage::commands::UnknownMeter;
use tokio::time::timeout;

use self::delivered::watched;
use self::retries::RetryHeaders;
use super::dialects::delivery::{AnswerNotKept, AnswerWriting, DeliveryHeading as Head, RenderedSink};
use super::dialects::refusals::no_retry;
use super::idempotent::{now_or_again, read};
use super::problem::{Problem, sentence};
use crate::telemetry::calls::SDK_RETRIES;

/// How long a stream that is followed may be silent.
const PING_EVERY: Duration = Duration::from_secs(10);
/// The longest route that a row can store.
const ROUTE_MAX: usize = 150;

/// What identifies a request when it is repeated.
#[derive(Clone)]
pub struct RepeatSigns {
    service: Option<Arc<ReplayService>>,
    repeat: Result<Option<RetryKind>, Problem>,
    /// Whether the caller retries by itself, so that our attempts would multiply its own.
    retried_by_caller: bool,
    caller: UserId,
    rights: CallerRights,
    api_key_id: Option<ApiKeyId>,
    route: String,
    /// The part of the query that the response depends on.
    query: String,
}

impl RepeatSigns {
    pub fn of(request: &HttpRequest, caller: &Caller) -> Self {
        let retries = RetryHeaders::of(request.headers());
        if retries.count > 0 {
            counter!(SDK_RETRIES).increment(1);
        }
        let repeat = read(request).map(|key| RetryKind::of(key.into_key(), retries.is_sdk, retries.count));
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

    /// The call that this body asks for; `None` if its response is not stored.
    fn asked(self, body: &[u8]) -> Result<Option<(Arc<ReplayService>, ReplayRequest)>, Problem> {
        let (Some(service), Some(repeat)) = (self.service, self.repeat?) else { return Ok(None) };
        // A body may be large, so its digests are computed without a copy of it.
        let content = [self.query.as_bytes(), b"\n", body];
        let key = match &repeat {
            RetryKind::Keyed(key) => key.clone(),
            RetryKind::OfSdk { .. } => key_of_sdk(self.api_key_id, content)?,
        };
        let (caller, route, rights) = (self.caller, self.route, self.rights);
        let claim = AnswerClaim { caller, route, key, fingerprint: fingerprint_of_parts(content), rights };
        Ok(Some((service, ReplayRequest { claim, repeat })))
    }
}

/// Replaces the key that an SDK does not send: a digest of the API key and the request. It differs from the digest that
/// is stored with the response, so that the response is sealed with something that the database does not have.
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

/// Method and path; a digest if the path is too long for a row.
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

/// How the response of a call is stored.
pub struct AnswerKeeping {
    call_claim: Option<CallClaim>,
    retried_by_caller: bool,
}

impl AnswerKeeping {
    /// The same call, with its response stored.
    pub async fn of(
        self,
        prepare: impl Future<Output = Result<(Call, AnswerWriting), Problem>>,
    ) -> Result<(Call, AnswerWriting), Problem> {
        let (call, writing) = prepare.await?;
        let hold_id: Option<HoldId> = self.call_claim.as_ref().map(CallClaim::hold_id);
        let sink: Box<dyn RenderedSink> = match self.call_claim {
            Some(call_claim) => Box::new(Kept(call_claim)),
            None => Box::new(AnswerNotKept),
        };
        Ok((Call { hold_id, retried_by_caller: self.retried_by_caller, ..call }, AnswerWriting { sink, ..writing }))
    }
}

/// Makes the call, or returns its stored response, or follows the running one.
pub async fn once<F>(
    signs: RepeatSigns,
    body: &Bytes,
    make: impl FnOnce(AnswerKeeping) -> F,
) -> Result<HttpResponse, Problem>
where
    F: Future<Output = Result<HttpResponse, Problem>>,
{
    let retried_by_caller = signs.retried_by_caller;
    let keeping = |call_claim| AnswerKeeping { call_claim, retried_by_caller };
    let Some((service, asked)) = signs.asked(body)? else { return make(keeping(None)).await };
    let RetryPlace { standing, mut waiting } = service.stand(asked).await?;
    let answered = match standing {
        ClaimState::Mine(call_claim) => {
            let taken = call_claim.taken();
            let answered = make(keeping(Some(call_claim))).await;
            taken.tell();
            answered
        }
        ClaimState::NotKept => make(keeping(None)).await,
        ClaimState::Kept(answer) => Ok(again(answer)),
        ClaimState::Running(listener) => along(listener),
    };
    match answered {
        Ok(response) => Ok(watched(response, waiting)),
        // A refusal says itself why there is no response.
        Err(problem) => {
            waiting.served();
            Err(problem)
        }
    }
}

/// Stores what is rendered.
struct Kept(CallClaim);

impl RenderedSink for Kept {
    fn begin(&mut self, heading: &Head) {
        let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let content_type = heading.headers.iter().find(|(name, _)| name == CONTENT_TYPE);
        let others = heading.headers.iter().filter(|(name, _)| name.as_str().starts_with("x-"));
        self.0.begin(AnswerHeading {
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
    beginning(AnswerHeading { status, content_type, headers }).body(body)
}

/// Follows a running response.
fn along(listener: AnswerListener) -> Result<HttpResponse, Problem> {
    if let Some(answer) = listener.whole() {
        return Ok(again(answer));
    }
    let heading = listener.heading().ok_or_else(|| Problem::from(ReplayError::NotReplayable(NotKept::Lost)))?;
    let is_events = heading.content_type.starts_with("text/event-stream");
    let chunks = unfold(listener, move |mut listener| async move {
        let chunk = match timeout(PING_EVERY, listener.chunk()).await {
            Ok(chunk) => chunk?,
            // A blank line has no content in any dialect of events.
            Err(_) if is_events => return Some((Ok(Bytes::from_static(b"\n\n")), listener)),
            Err(_) => listener.chunk().await?,
        };
        // A stream that cannot be followed any more breaks off, so that a part is not taken for the whole.
        Some((chunk.map(Bytes::from_owner).map_err(std::io::Error::other), listener))
    });
    Ok(beginning(heading).streaming(chunks))
}

fn beginning(heading: AnswerHeading) -> HttpResponseBuilder {
    let AnswerHeading { status, content_type, headers } = heading;
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
            ReplayError::NotReplayable(NotKept::Lost) => no_retry(Self::new(StatusCode::CONFLICT, "answer_lost", told)),
            ReplayError::NotReplayable(NotKept::TooLong) => {
                no_retry(Self::new(StatusCode::CONFLICT, "answer_too_long", told))
            }
            ReplayError::Busy => Self::unavailable("busy", format!("{told} Nothing was done; send it again.")),
            ReplayError::UnknownUser => UnknownMeter::User.into(),
            ReplayError::Store(error) => error.into(),
        }
    }
}
