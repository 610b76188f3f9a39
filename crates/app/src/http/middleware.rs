//! Middleware: the outermost one. Every request gets an id, a span, a deadline, a line in the log and its metrics;
//! every response gets the common headers; every error is a complete problem.
//!
//! Promise: every response with a status of 400 or more has a body of ours, whatever refused the request: a handler, an
//! extractor, the router (404, 405 with its Allow) or the deadline. Neither the query string nor any header but the
//! request id reaches the log. Costs a few microseconds; the deadline drops the handler, never the use case, which runs
//! in a task of its own (`spawn`).

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::body::{BoxBody, EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HeaderMap, HeaderName,
    HeaderValue, ORIGIN, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage, ResponseError};
use domain::ai::Dialect;
use futures_util::FutureExt;
use metrics::{counter, histogram};
use ports::randomness::Randomness;
use tracing::{Instrument, Span, error, error_span, info};

use super::connections::RequestInProgress;
use super::cors::Cors;
use super::dialects::dialect::dialect_of;
use super::dialects::problems;
use super::host;
use super::problem::{self, Problem};
mod body_watch;
mod ending;
mod refusals;
#[cfg(test)]
mod tests;
mod who;

use body_watch::{BodyWatch, WatchedBody};
use ending::{EndingBody, begin};
pub use who::RequestActor;

use refusals::{of_error, problem_of, too_late};

use crate::settings::shape::ServerSettings;
use crate::telemetry::{REQUEST_SECONDS, REQUESTS};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// The header that Anthropic's SDK reads as the id of a request.
static ANTHROPIC_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// The greatest length of an id that the client chose.
const REQUEST_ID_MAX: usize = 64;

/// The path of calls in our own format. Other calls are recognized by their dialect.
const CHAT_PATH: &str = "/api/ai/chat";

/// The label of requests to paths that no route has: a client must not be able to create labels.
const UNMATCHED: &str = "unmatched";

/// What the middleware needs, once a process.
pub struct MiddlewareSettings {
    randomness: Arc<dyn Randomness>,
    cors: Cors,
    deadline: Duration,
    strict_transport: Option<HeaderValue>,
}

impl MiddlewareSettings {
    pub fn new(server: &ServerSettings, randomness: Arc<dyn Randomness>) -> anyhow::Result<Self> {
        let deadline = Duration::from_secs(server.request_timeout_seconds.max(1));
        let strict_transport = match server.hsts_seconds {
            0 => None,
            seconds => Some(HeaderValue::from_str(&format!("max-age={seconds}"))?),
        };
        Ok(Self { randomness, cors: Cors::new(&server.cors_origins)?, deadline, strict_transport })
    }
}

/// What is kept of a request while the router has it.
struct Asked {
    method: Method,
    path: String,
    route: Cow<'static, str>,
    /// The dialect of its response, if it is not our own format.
    dialect: Option<Dialect>,
    /// Whether a model answers, which may take longer than our own work.
    asks_a_model: bool,
    origin: Option<HeaderValue>,
    with_credentials: bool,
    who: RequestActor,
    since: Instant,
}

/// A problem as it is sent.
struct Written {
    status: StatusCode,
    content_type: &'static str,
    body: String,
}

/// The middleware, for `actix_web::middleware::from_fn`.
pub async fn finish(
    finishing: Data<MiddlewareSettings>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let asked = Asked::read(&request, &*finishing.randomness);
    let in_progress = begin(&request);
    request.extensions_mut().insert(asked.who.clone());
    let span = asked.span();
    async {
        let settled = answer(&finishing, &asked, request, next, in_progress).await;
        let status = match &settled {
            Ok(response) => response.status(),
            Err(error) => error.as_response_error().status_code(),
        };
        asked.report(status);
        settled
    }
    .instrument(span)
    .await
}

async fn answer<B: MessageBody + 'static>(
    finishing: &MiddlewareSettings,
    asked: &Asked,
    mut request: ServiceRequest,
    next: Next<B>,
    in_progress: Option<RequestInProgress>,
) -> Result<ServiceResponse<EndingBody<EitherBody<B>, Option<RequestInProgress>>>, Error> {
    if let Some(granted) = finishing.cors.preflight(request.method(), request.headers()) {
        let mut response = request.into_response(granted).map_into_right_body();
        finishing.dress(asked, StatusCode::NO_CONTENT, response.headers_mut());
        return Ok(response.map_body(|_, body| EndingBody::new(body, in_progress)));
    }
    if asked.method == Method::HEAD {
        // What answers GET answers HEAD; the server sends the head alone.
        request.head_mut().method = Method::GET;
    }
    let body = BodyWatch::place(&mut request, in_progress.as_ref());
    // A handler that panics loses only its own response: the use case and its transaction run in another task.
    let named = host::check(request.version(), request.headers());
    let is_over_a_connection = in_progress.is_some();
    let handled = async {
        match named {
            Err(refused) if is_over_a_connection => Err(refused.into()),
            _ => next.call(request).await,
        }
    };
    let mut handled = pin!(AssertUnwindSafe(handled).catch_unwind());
    let in_time = in_time(finishing.deadline, asked, &body, handled.as_mut()).await;
    let problem = match in_time {
        Ok(Ok(Ok(response))) => {
            let response = finishing.complete(asked, response);
            let response = match body.unfinished() {
                None => response,
                Some(rest) => response.map_body(|_, answer| EitherBody::right(rest.keep_beside(answer))),
            };
            return Ok(response.map_body(|_, body| EndingBody::new(body, in_progress)));
        }
        Ok(Ok(Err(error))) => of_error(&error, None),
        Ok(Err(_)) => Problem::internal(&"a handler panicked"),
        Err(()) => too_late(finishing.deadline, body.is_awaited()),
    };
    // The handler consumed the request, so the response is returned as an error, which the server writes as it is.
    let written = asked.written(&problem);
    let text = BoxBody::new(written.body);
    let text = match body.unfinished() {
        None => text,
        Some(rest) => rest.keep_beside(text),
    };
    let text = BoxBody::new(EndingBody::new(text, in_progress));
    let mut response = problem.error_response().set_body(text);
    *response.status_mut() = written.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(written.content_type));
    finishing.dress(asked, written.status, response.headers_mut());
    Err(InternalError::from_response("answered", response).into())
}

/// The result of work that ends before the deadline; `Err` past it. A model call has a time limit of its own. The body
/// of a model call may be long: it has time as long as it arrives at some speed.
async fn in_time<T>(
    deadline: Duration,
    asked: &Asked,
    body: &WatchedBody,
    mut handled: std::pin::Pin<&mut impl Future<Output = T>>,
) -> Result<T, ()> {
    let (mut allowed, mut left) = (deadline, deadline);
    loop {
        match tokio::time::timeout(left, handled.as_mut()).await {
            Ok(done) => return Ok(done),
            Err(_) if !asked.asks_a_model => return Err(()),
            Err(_) if !body.is_awaited() => return Ok(handled.await),
            Err(_) => {
                let earned = deadline + body.earned_time();
                if earned <= allowed {
                    return Err(());
                }
                allowed = earned;
                left = allowed.saturating_sub(asked.since.elapsed());
            }
        }
    }
}

impl MiddlewareSettings {
    /// The response with its problem rendered, if it has one, and with the common headers.
    fn complete<B: MessageBody + 'static>(
        &self,
        asked: &Asked,
        response: ServiceResponse<B>,
    ) -> ServiceResponse<EitherBody<B>> {
        let mut response = match problem_of(response.response()) {
            None => response.map_into_left_body(),
            Some(problem) => {
                let written = asked.written(&problem);
                let mut response = response.map_body(|_, _| EitherBody::right(BoxBody::new(written.body)));
                *response.response_mut().status_mut() = written.status;
                let headers = response.headers_mut();
                headers.remove(CONTENT_ENCODING);
                headers.remove(CONTENT_LENGTH);
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(written.content_type));
                response
            }
        };
        self.dress(asked, response.status(), response.headers_mut());
        response
    }

    fn dress(&self, asked: &Asked, status: StatusCode, headers: &mut HeaderMap) {
        if let Ok(id) = HeaderValue::from_str(asked.who.request_id()) {
            // A provider's own response has this header already.
            if asked.dialect == Some(Dialect::Anthropic) && !headers.contains_key(&ANTHROPIC_REQUEST_ID) {
                headers.insert(ANTHROPIC_REQUEST_ID.clone(), id.clone());
            }
            headers.insert(REQUEST_ID.clone(), id);
        }
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        if let Some(strict) = &self.strict_transport {
            headers.insert(STRICT_TRANSPORT_SECURITY, strict.clone());
        }
        // RFC 9110 requires it in every 401, also in that of a log-in.
        if status == StatusCode::UNAUTHORIZED && !headers.contains_key(WWW_AUTHENTICATE) {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(allow) = headers.get(ALLOW).and_then(with_head) {
            headers.insert(ALLOW, allow);
        }
        let failed = status.as_u16() >= 400;
        if (asked.with_credentials || failed) && !headers.contains_key(CACHE_CONTROL) {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        self.cors.grant(asked.origin.as_ref(), headers);
    }
}

impl Asked {
    fn read(request: &ServiceRequest, randomness: &dyn Randomness) -> Self {
        let headers = request.headers();
        let sent_id = headers.get(&REQUEST_ID).and_then(|value| value.to_str().ok()).filter(|id| is_request_id(id));
        let dialect = dialect_of(request.path(), headers);
        Self {
            method: request.method().clone(),
            path: request.path().to_owned(),
            route: request.match_pattern().map_or(Cow::Borrowed(UNMATCHED), Cow::Owned),
            dialect,
            asks_a_model: dialect.is_some() || request.path() == CHAT_PATH,
            origin: headers.get(ORIGIN).cloned(),
            // In a dialect the credential may be in other headers, and in the address.
            with_credentials: dialect.is_some()
                || [&AUTHORIZATION, &COOKIE, &API_KEY].iter().any(|name| headers.contains_key(*name)),
            who: RequestActor::of(request, sent_id.map_or_else(|| randomness.new_id().to_string(), str::to_owned)),
            since: Instant::now(),
        }
    }

    /// The problem in the format of the request.
    fn written(&self, problem: &Problem) -> Written {
        match self.dialect {
            None => Written {
                status: problem.status,
                content_type: problem::CONTENT_TYPE,
                body: problem.body(&self.path, self.who.request_id()).to_string(),
            },
            Some(dialect) => Written {
                status: problems::status(dialect, problem),
                content_type: "application/json",
                body: problems::body(dialect, problem, self.who.request_id()).to_string(),
            },
        }
    }

    /// Of level error, so that a log line of any level names its request, whatever the filter.
    fn span(&self) -> Span {
        let method = method_label(&self.method);
        error_span!("request", method, route = %self.route, request_id = %self.who.request_id())
    }

    fn report(&self, status: StatusCode) {
        let (took, method) = (self.since.elapsed(), method_label(&self.method));
        let route = self.route.clone().into_owned();
        histogram!(REQUEST_SECONDS, "method" => method, "route" => route.clone()).record(took.as_secs_f64());
        let status_label = status.as_str().to_owned();
        counter!(REQUESTS, "method" => method, "route" => route, "status" => status_label).increment(1);
        let milliseconds = (took.as_secs_f64() * 1_000_000.0).round() / 1_000.0;
        // An operator who investigates an attack needs to know who is refused, and from where.
        let is_refusal =
            matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS);
        if is_refusal {
            let address = self.who.address_text();
            let user = self.who.user_text();
            info!(status = status.as_u16(), milliseconds, address, user, "refused");
        } else if status.is_server_error() {
            error!(status = status.as_u16(), milliseconds, "answered");
        } else {
            info!(status = status.as_u16(), milliseconds, "answered");
        }
    }
}

/// Every route that answers GET answers HEAD too.
fn with_head(allow: &HeaderValue) -> Option<HeaderValue> {
    let methods: Vec<_> = allow.to_str().ok()?.split(',').map(str::trim).collect();
    let lacks_head = methods.contains(&"GET") && !methods.contains(&"HEAD");
    if lacks_head { HeaderValue::from_str(&format!("{}, HEAD", methods.join(", "))).ok() } else { None }
}

fn is_request_id(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=REQUEST_ID_MAX).contains(&text.len()) && text.bytes().all(fits)
}

/// The methods of RFC 9110 by name; all others share one label.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
