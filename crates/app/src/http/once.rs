//! Once: the `Idempotency-Key` of a request, and the answer that is given again when the request comes again.

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, HeaderName};
use actix_web::{FromRequest, HttpRequest, HttpResponse, HttpResponseBuilder, dev::Payload};
use domain::idempotency::{IdempotencyKey, StoredAnswer};
use domain::identity::{Caller, CallerRights};
use domain::users::UserId;
use ports::idempotency::AnswerClaim;
use serde::Serialize;
use services::idempotency::{Once, Performed};

use super::problem::Problem;

/// Marks an answer that was given before.
static REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The key that came with a request, if one did, and the route that it is good for.
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

/// The key of a request whose body is read elsewhere.
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

/// The one key of a request that may bring it in the header, in the body, or in both alike.
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

    /// Without the key where nothing will be done: the answer of a preview must not stand for the change itself.
    #[must_use]
    pub fn ignored_if(self, nothing_is_done: bool) -> Self {
        Self { key: self.key.filter(|_| !nothing_is_done), ..self }
    }

    /// Asks for the work to be done once for this caller, and its outcome to be answered with `status` and `view`. Whoever sends
    /// the key again gets the answer only with rights that cover this caller's.
    pub fn once<T, V: Serialize>(
        self,
        caller: &Caller,
        body: &[u8],
        status: StatusCode,
        view: impl Fn(&T) -> V + Send + Sync + 'static,
    ) -> Once<T> {
        self.once_for(caller.user_id, CallerRights::of(caller), body, status, view)
    }

    /// The same for someone who may have no profile yet.
    pub fn once_for<T, V: Serialize>(
        self,
        caller: UserId,
        rights: CallerRights,
        body: &[u8],
        status: StatusCode,
        view: impl Fn(&T) -> V + Send + Sync + 'static,
    ) -> Once<T> {
        let claim = self.key.map(|key| {
            let fingerprint = adapters::digest::fingerprint(body);
            AnswerClaim { caller, route: self.route, key, fingerprint, rights }
        });
        let render = move |outcome: &T| StoredAnswer {
            status: status.as_u16(),
            content_type: "application/json".to_owned(),
            // A view is made of text, numbers and lists: there is nothing in it that JSON cannot say.
            body: serde_json::to_vec(&view(outcome)).unwrap_or_default(),
        };
        Once { claim, render: std::sync::Arc::new(render) }
    }
}

/// The answer as it goes over the wire, now or again.
pub fn answer(performed: Performed) -> HttpResponse {
    let (stored, replayed) = match performed {
        Performed::Fresh(answer) => (answer, false),
        Performed::Replayed(answer) => (answer, true),
    };
    let status = StatusCode::from_u16(stored.status).unwrap_or(StatusCode::OK);
    now_or_again(status, replayed).content_type(stored.content_type).body(stored.body)
}

/// The beginning of an answer that is given once and may be given again. It may hold a secret, so nobody may keep it.
pub fn now_or_again(status: StatusCode, replayed: bool) -> HttpResponseBuilder {
    let mut response = HttpResponse::build(status);
    response.insert_header((CACHE_CONTROL, "no-store"));
    if replayed {
        response.insert_header((REPLAYED.clone(), "true"));
    }
    response
}
