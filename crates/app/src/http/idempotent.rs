//! Idempotency: the `Idempotency-Key` of a request, and the stored response that a repeat of the request gets.

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, HeaderName};
use actix_web::{FromRequest, HttpRequest, HttpResponse, HttpResponseBuilder, dev::Payload};
use domain::idempotency::{IdempotencyKey, StoredAnswer};
use domain::identity::{Caller, CallerRights};
use domain::users::UserId;
use ports::idempotency::AnswerClaim;
use serde::Serialize;
use services::idempotency::{IdempotencyService, IdempotentAnswer};

use super::problem::Problem;

/// Marks a replayed response.
static REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The idempotency key of a request, if it has one, and the route that it is valid for.
pub struct RequestKey {
    key: Option<IdempotencyKey>,
    route: String,
}

impl FromRequest for RequestKey {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(read(request))
    }
}

/// The idempotency key of a request whose body is read elsewhere.
pub fn read(request: &HttpRequest) -> Result<RequestKey, Problem> {
    let refused = |why: String| Problem::invalid_field("Idempotency-Key", why);
    let mut sent = request.headers().get_all("idempotency-key");
    let key = match (sent.next(), sent.next()) {
        (None, _) => None,
        (Some(_), Some(_)) => return Err(refused("was sent more than once".to_owned())),
        (Some(value), None) => {
            let text = value.to_str().map_err(|_| refused("is made of visible ASCII characters".to_owned()))?;
            Some(IdempotencyKey::parse(text).map_err(|why| refused(format!("was refused: {why}")))?)
        }
    };
    Ok(RequestKey { key, route: format!("{} {}", request.method(), request.path()) })
}

/// The idempotency key of a request that may have it in the header, in the body, or in both alike.
pub fn one_key(header: Option<IdempotencyKey>, body: Option<&str>) -> Result<Option<IdempotencyKey>, Problem> {
    let refused = |why| Problem::invalid_field("idempotency_key", format!("is refused: {why}"));
    let body = body.map(IdempotencyKey::parse).transpose().map_err(refused)?;
    match (header, body) {
        (Some(header), Some(body)) if header != body => Err(Problem::invalid_field(
            "idempotency_key",
            "differs from the header `Idempotency-Key`; send one of them",
        )),
        (header, body) => Ok(header.or(body)),
    }
}

impl RequestKey {
    /// The key alone, where it belongs to the charged user and not to the route.
    pub fn into_key(self) -> Option<IdempotencyKey> {
        self.key
    }

    /// Drops the key if nothing will be done: the response of a preview must not be replayed for the change itself.
    #[must_use]
    pub fn ignored_if(self, nothing_is_done: bool) -> Self {
        Self { key: self.key.filter(|_| !nothing_is_done), ..self }
    }

    /// Asks for the work to be done once for this caller, and its outcome to be answered with `status` and `view`. A
    /// repeat gets the response only with rights that cover this caller's.
    pub fn once<T, V: Serialize>(
        self,
        caller: &Caller,
        body: &[u8],
        status: StatusCode,
        view: impl Fn(&T) -> V + Send + Sync + 'static,
    ) -> IdempotencyService<T> {
        self.once_for(caller.user_id, CallerRights::of(caller), body, status, view)
    }

    /// The same for a caller who may have no profile yet.
    pub fn once_for<T, V: Serialize>(
        self,
        caller: UserId,
        rights: CallerRights,
        body: &[u8],
        status: StatusCode,
        view: impl Fn(&T) -> V + Send + Sync + 'static,
    ) -> IdempotencyService<T> {
        let claim = self.key.map(|key| {
            let fingerprint = adapters::digest::fingerprint(body);
            AnswerClaim { caller, route: self.route, key, fingerprint, rights }
        });
        let render = move |outcome: &T| StoredAnswer {
            status: status.as_u16(),
            content_type: "application/json".to_owned(),
            // A view has text, numbers and lists, which JSON can always express.
            body: serde_json::to_vec(&view(outcome)).unwrap_or_default(),
        };
        IdempotencyService { claim, render: std::sync::Arc::new(render) }
    }
}

/// The HTTP response, fresh or replayed.
pub fn answer(performed: IdempotentAnswer) -> HttpResponse {
    let (stored, replayed) = match performed {
        IdempotentAnswer::Fresh(answer) => (answer, false),
        IdempotentAnswer::Replayed(answer) => (answer, true),
    };
    let status = StatusCode::from_u16(stored.status).unwrap_or(StatusCode::OK);
    now_or_again(status, replayed).content_type(stored.content_type).body(stored.body)
}

/// The start of a response that may be replayed. It may contain a secret, so it must not be cached.
pub fn now_or_again(status: StatusCode, replayed: bool) -> HttpResponseBuilder {
    let mut response = HttpResponse::build(status);
    response.insert_header((CACHE_CONTROL, "no-store"));
    if replayed {
        response.insert_header((REPLAYED.clone(), "true"));
    }
    response
}
