//! Callers: the caller of a request, as the argument of a handler. A handler without it does not know the caller.
//!
//! The middleware `identify` checks the credentials before the handler's arguments are made, so that 401 and 403 come
//! before any error of the body. Refused credentials are counted by address and slowed down.

use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::Arc;

use actix_web::body::MessageBody;
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::AUTHORIZATION;
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use domain::identity::{Caller, Permission, PermissionMissing};
use domain::users::UserId;
use services::identity::callers::{AtOnce, CallerService, IdentifiedCaller, NotIdentified, PresentedCredential};
use tracing::debug;

use super::dialects::dialect::{GOOGLE_KEY, dialect_of};
use super::middleware::RequestActor;
use super::problem::Problem;
use super::rate_limits::RateLimits;
use super::spawn::detached;
use crate::settings::shape::Settings;

/// The header for an API key, besides or instead of `Authorization`.
const API_KEY_HEADER: &str = "x-api-key";

/// Routes without a caller: those for machines, which have a token of their own, and those to log in and out.
const NAMELESS: [&str; 7] =
    ["/healthz", "/readyz", "/metrics", "/api/auth/signup", "/api/auth/login", "/api/auth/refresh", "/api/auth/logout"];

/// The path prefix of the routes of the caller's own account.
const OWN_ACCOUNT: &str = "/api/auth/";

fn enrolment_required() -> Problem {
    let detail = "Administrators need a second factor here: set one up by POST /api/auth/totp/enroll and .../confirm, then \
        refresh your token.";
    Problem::new(StatusCode::FORBIDDEN, "totp_enrollment_required", detail)
}

/// What the middleware found, for the extractors.
#[derive(Clone)]
struct Asking(Result<IdentifiedCaller, Problem>);

/// Identifies the caller, if the request has credentials.
pub async fn identify(
    callers: Data<CallerService>,
    settings: Data<Settings>,
    limits: Data<RateLimits>,
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let named = !NAMELESS.iter().any(|nameless| request.path().starts_with(nameless));
    let in_query = key_in_query(request.request());
    let shown = presented(request.request(), &settings.api_keys.prefix, in_query.as_deref());
    if let Some(presented) = shown.filter(|_| named) {
        let address = limits.address_of(request.request());
        let asking = look_up(callers.into_inner(), &limits, address, presented).await;
        if let (Ok(found), Some(who)) = (&asking, request.extensions().get::<RequestActor>()) {
            who.is(found.user_id());
        }
        request.extensions_mut().insert(Asking(asking));
    }
    next.call(request).await
}

/// Runs on this thread if the caller is cached, or if only facts are missing, which are read by a fetch of their own.
/// Everything else runs in a task of its own.
///
/// Failures of an address do not block a valid credential: what can be checked without the database is always checked,
/// and only the refusal differs. A key that only the database knows is looked up unless too many unknown ones came from
/// the address, or if it was valid recently.
async fn look_up(
    callers: Arc<CallerService>,
    limits: &RateLimits,
    address: IpAddr,
    presented: PresentedCredential<'_>,
) -> Result<IdentifiedCaller, Problem> {
    match callers.identify_at_once(presented) {
        AtOnce::Known(identified) => return Ok(identified),
        AtOnce::FactsMissing(identity) => {
            let identified = callers.identify_user(&identity).await;
            return identified.map_err(|error| refusal(error, Problem::unauthorized));
        }
        AtOnce::Unknown => {}
    }
    let credential = limits.credential(presented);
    let in_database = callers.asks_the_database(presented);
    if in_database {
        limits.check_lookups(address, credential)?;
    }
    let kept = presented.keep();
    let found = detached(async move { Ok::<_, Problem>(callers.identify(&kept).await) }).await?;
    if found.is_ok() && in_database {
        limits.note_good(credential);
    }
    found.map_err(|error| {
        refusal(error, || {
            let counted = if in_database { limits.count_lookup(address) } else { limits.count_failure(address) };
            counted.err().unwrap_or_else(Problem::unauthorized)
        })
    })
}

/// The problem of a credential that is not accepted. `refused` is called if the credential is at fault.
pub fn refusal(error: NotIdentified, refused: impl FnOnce() -> Problem) -> Problem {
    match error {
        NotIdentified::Refused(why) => {
            debug!(%why, "a credential was refused");
            refused()
        }
        NotIdentified::Banned => {
            let detail = "Your identity is banned. It may act again when its provider ends the ban.";
            Problem::new(StatusCode::FORBIDDEN, "identity_banned", detail)
        }
        NotIdentified::ProviderAway(why) => {
            tracing::error!(%why, "tokens cannot be checked");
            Problem::unavailable("identity_provider_away", "Tokens cannot be checked just now. Send the request again.")
        }
        NotIdentified::Store(error) => error.into(),
    }
}

/// The problem if the user that the caller acts for may not be served.
pub fn not_served(error: NotIdentified) -> Problem {
    match error {
        NotIdentified::Banned | NotIdentified::Refused(_) => {
            let detail = "The user's identity is banned or deleted by its provider.";
            Problem::new(StatusCode::FORBIDDEN, "identity_banned", detail)
        }
        other => refusal(other, Problem::unauthorized),
    }
}

/// The API key that Gemini's clients may send in the query. Our own routes accept none there.
fn key_in_query(request: &HttpRequest) -> Option<String> {
    dialect_of(request.path(), request.headers())?;
    let mut pairs = form_urlencoded::parse(request.query_string().as_bytes());
    pairs.find(|(name, _)| name == "key").map(|(_, key)| key.into_owned())
}

/// The credential of a request: an API key in any header, otherwise a bearer token. In a dialect either may be where
/// the SDK sends its key.
fn presented<'a>(
    request: &'a HttpRequest,
    key_prefix: &str,
    in_query: Option<&'a str>,
) -> Option<PresentedCredential<'a>> {
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap_or_default().trim());
    let either = |shown: &'a str| {
        if shown.starts_with(key_prefix) { PresentedCredential::Key(shown) } else { PresentedCredential::Token(shown) }
    };
    let is_dialect = dialect_of(request.path(), request.headers()).is_some();
    if let Some(key) = header(API_KEY_HEADER) {
        return Some(if is_dialect { either(key) } else { PresentedCredential::Key(key) });
    }
    if let Some(key) = header(GOOGLE_KEY).or(in_query).filter(|_| is_dialect) {
        return Some(either(key));
    }
    let authorization = header(AUTHORIZATION.as_str())?;
    let (scheme, credential) = authorization.split_once(' ').unwrap_or((authorization, ""));
    // Another scheme is a credential too, one that is never accepted: it must not count as none.
    let credential = if scheme.eq_ignore_ascii_case("bearer") { credential.trim() } else { "" };
    Some(either(credential))
}

fn asking(request: &HttpRequest) -> Result<IdentifiedCaller, Problem> {
    let found = request.extensions().get::<Asking>().cloned();
    found.map_or_else(|| Err(Problem::unauthorized()), |asking| asking.0)
}

/// The access token of a request that has one.
pub(super) fn shown_token(request: &HttpRequest, key_prefix: &str) -> Option<String> {
    match presented(request, key_prefix, None)? {
        PresentedCredential::Token(token) => Some(token.to_owned()),
        PresentedCredential::Key(_) => None,
    }
}

pub(super) fn caller(request: &HttpRequest) -> Result<Caller, Problem> {
    match asking(request)? {
        IdentifiedCaller::Caller(caller) => Ok(caller),
        IdentifiedCaller::Newcomer(_) => {
            let detail = "Your identity has no profile yet: make one with POST /api/users.";
            Err(Problem::new(StatusCode::FORBIDDEN, "profile_missing", detail))
        }
        IdentifiedCaller::Enrolling(caller) if request.path().starts_with(OWN_ACCOUNT) => Ok(caller),
        IdentifiedCaller::Enrolling(_) => Err(enrolment_required()),
    }
}

/// The user of the request, if known.
pub fn user_of(request: &HttpRequest) -> Option<UserId> {
    asking(request).ok().map(|identified| identified.user_id())
}

/// A caller with an identity, with a profile or without.
pub struct AnyCaller(pub IdentifiedCaller);

impl FromRequest for AnyCaller {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(asking(request).and_then(|identified| match identified {
            IdentifiedCaller::Enrolling(_) => Err(enrolment_required()),
            identified => Ok(Self(identified)),
        }))
    }
}

/// The caller of a route that also serves requests without credentials.
pub struct OptionalCaller(pub Option<Caller>);

impl OptionalCaller {
    /// Whether more than the public part may be shown.
    pub fn may_administer(&self, permission: Permission) -> bool {
        self.0.as_ref().is_some_and(|caller| caller.may_administer(permission).is_ok())
    }
}

impl FromRequest for OptionalCaller {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let said_something = request.extensions().get::<Asking>().is_some();
        if !said_something {
            return std::future::ready(Ok(Self(None)));
        }
        let found = asking(request).map(|identified| match identified {
            IdentifiedCaller::Caller(caller) => Some(caller),
            IdentifiedCaller::Newcomer(_) | IdentifiedCaller::Enrolling(_) => None,
        });
        std::future::ready(found.map(Self))
    }
}

/// What a handler requires of its caller, as a type: `PermittedCaller<CheckUsage>`.
pub trait CallerRequirement {
    fn check(caller: &Caller) -> Result<(), PermissionMissing>;
}

/// A caller with a profile who meets the requirement `R`.
pub struct PermittedCaller<R> {
    pub caller: Caller,
    requirement: PhantomData<R>,
}

impl<R: CallerRequirement> FromRequest for PermittedCaller<R> {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(caller(request).and_then(|caller| {
            R::check(&caller)?;
            Ok(Self { caller, requirement: PhantomData })
        }))
    }
}

macro_rules! requirements {
    ($($(#[$doc:meta])* $name:ident = $check:ident($permission:ident);)+) => {
        $($(#[$doc])*
        pub struct $name;
        impl CallerRequirement for $name {
            fn check(caller: &Caller) -> Result<(), PermissionMissing> {
                caller.$check(Permission::$permission)
            }
        })+
    };
}

requirements! {
    ReadOwnProfile = may(UsersRead);
    WriteOwnProfile = may(UsersWrite);
    ReadOwnPlan = may(PlansRead);
    /// A plan may cost money, so its change needs the billing permission.
    ChangeOwnPlan = may(BillingManage);
    CheckUsage = may(UsageCheck);
    WriteUsage = may(UsageWrite);
    ReadAnyUsage = may_administer(UsageCheck);
    Chat = may(AiChat);
    ManageOwnKeys = may(KeysManage);
    ManageTokens = may_administer(BillingManage);
    ReadCatalogue = may_administer(PlansRead);
    WriteCatalogue = may_administer(PlansWrite);
    ReadAnyUser = may_administer(UsersRead);
    WriteAnyUser = may_administer(UsersWrite);
    ReadAudit = may_administer(AuditRead);
}
