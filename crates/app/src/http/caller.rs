//! Callers: who asks, as the argument of a handler. A handler that does not name one does not know who asks.
//!
//! The middleware `identify` looks at the credentials before the handler's arguments are made, so that 401 and 403
//! come before any word about the body. Refused credentials are counted by address and slowed down.

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
use domain::identity::{Caller, Forbidden, Permission};
use domain::users::UserId;
use services::identity::callers::{AtOnce, CallerService, Identified, NotIdentified, Presented};
use tracing::debug;

use super::detached::detached;
use super::dialects::dialect::{Dialect, GOOGLE_KEY};
use super::finish::Who;
use super::limits::RateLimits;
use super::problem::Problem;
use crate::settings::shape::Settings;

/// The header that carries a key beside, or in place of, `Authorization`.
const API_KEY_HEADER: &str = "x-api-key";

/// Routes that know no caller: those for machines, whose token is their own, and those by which one becomes a caller.
const NAMELESS: [&str; 7] =
    ["/healthz", "/readyz", "/metrics", "/api/auth/signup", "/api/auth/login", "/api/auth/refresh", "/api/auth/logout"];

/// Where the routes of the own account begin.
const OWN_ACCOUNT: &str = "/api/auth/";

fn enrolment_required() -> Problem {
    let detail = "Administrators need a second factor here: set one up by POST /api/auth/totp/enroll and .../confirm, then \
        refresh your token.";
    Problem::new(StatusCode::FORBIDDEN, "totp_enrollment_required", detail)
}

/// What the middleware found out, for the extractors.
#[derive(Clone)]
struct Asking(Result<Identified, Problem>);

/// Finds out who asks, if the request says anything about it.
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
        if let (Ok(found), Some(who)) = (&asking, request.extensions().get::<Who>()) {
            who.is(found.user_id());
        }
        request.extensions_mut().insert(Asking(asking));
    }
    next.call(request).await
}

/// On this very thread where the memory knows the caller, and where all that is missing is read by a fetch of its own.
/// Everything else is detached.
///
/// Failures of an address hold nobody back whose credential is good: what is judged without the database is always judged,
/// and only the refusal is another one. A key that only the database knows is looked up unless too many unknown ones came
/// from the address, or if it was good not long ago.
async fn look_up(
    callers: Arc<CallerService>,
    limits: &RateLimits,
    address: IpAddr,
    presented: Presented<'_>,
) -> Result<Identified, Problem> {
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

/// What is said where a credential is not taken. `refused` is asked where that is its own fault.
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

/// What is said where the user whom somebody acts for may not be served.
pub fn not_served(error: NotIdentified) -> Problem {
    match error {
        NotIdentified::Banned | NotIdentified::Refused(_) => {
            let detail = "The user's identity is banned or deleted by its provider.";
            Problem::new(StatusCode::FORBIDDEN, "identity_banned", detail)
        }
        other => refusal(other, Problem::unauthorized),
    }
}

/// The key that Gemini's clients may send in the address. The routes of the house take none from there.
fn key_in_query(request: &HttpRequest) -> Option<String> {
    Dialect::of(request.path(), request.headers())?;
    let mut pairs = form_urlencoded::parse(request.query_string().as_bytes());
    pairs.find(|(name, _)| name == "key").map(|(_, key)| key.into_owned())
}

/// The credential of a request: an API key wherever it stands, else a bearer token. In a dialect either may stand where
/// the SDK puts what it calls a key.
fn presented<'a>(request: &'a HttpRequest, key_prefix: &str, in_query: Option<&'a str>) -> Option<Presented<'a>> {
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap_or_default().trim());
    let either = |shown: &'a str| {
        if shown.starts_with(key_prefix) { Presented::Key(shown) } else { Presented::Token(shown) }
    };
    let is_dialect = Dialect::of(request.path(), request.headers()).is_some();
    if let Some(key) = header(API_KEY_HEADER) {
        return Some(if is_dialect { either(key) } else { Presented::Key(key) });
    }
    if let Some(key) = header(GOOGLE_KEY).or(in_query).filter(|_| is_dialect) {
        return Some(either(key));
    }
    let authorization = header(AUTHORIZATION.as_str())?;
    let (scheme, credential) = authorization.split_once(' ').unwrap_or((authorization, ""));
    // Another scheme is a credential too, one that nobody accepts: it must not pass for none.
    let credential = if scheme.eq_ignore_ascii_case("bearer") { credential.trim() } else { "" };
    Some(either(credential))
}

fn asking(request: &HttpRequest) -> Result<Identified, Problem> {
    let found = request.extensions().get::<Asking>().cloned();
    found.map_or_else(|| Err(Problem::unauthorized()), |asking| asking.0)
}

/// The access token of a request that has one.
pub(super) fn shown_token(request: &HttpRequest, key_prefix: &str) -> Option<String> {
    match presented(request, key_prefix, None)? {
        Presented::Token(token) => Some(token.to_owned()),
        Presented::Key(_) => None,
    }
}

pub(super) fn caller(request: &HttpRequest) -> Result<Caller, Problem> {
    match asking(request)? {
        Identified::Caller(caller) => Ok(caller),
        Identified::Newcomer(_) => {
            let detail = "Your identity has no profile yet: make one with POST /api/users.";
            Err(Problem::new(StatusCode::FORBIDDEN, "profile_missing", detail))
        }
        Identified::Enrolling(caller) if request.path().starts_with(OWN_ACCOUNT) => Ok(caller),
        Identified::Enrolling(_) => Err(enrolment_required()),
    }
}

/// Whose request it is, if that is known.
pub fn user_of(request: &HttpRequest) -> Option<UserId> {
    asking(request).ok().map(|identified| identified.user_id())
}

/// Someone with an identity, with a profile or without.
pub struct Anyone(pub Identified);

impl FromRequest for Anyone {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(asking(request).and_then(|identified| match identified {
            Identified::Enrolling(_) => Err(enrolment_required()),
            identified => Ok(Self(identified)),
        }))
    }
}

/// The caller of a route that also serves those who say nothing about themselves.
pub struct Perhaps(pub Option<Caller>);

impl Perhaps {
    /// Whether more than the public part may be shown.
    pub fn may_administer(&self, permission: Permission) -> bool {
        self.0.as_ref().is_some_and(|caller| caller.may_administer(permission).is_ok())
    }
}

impl FromRequest for Perhaps {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let said_something = request.extensions().get::<Asking>().is_some();
        if !said_something {
            return std::future::ready(Ok(Self(None)));
        }
        let found = asking(request).map(|identified| match identified {
            Identified::Caller(caller) => Some(caller),
            Identified::Newcomer(_) | Identified::Enrolling(_) => None,
        });
        std::future::ready(found.map(Self))
    }
}

/// What a handler asks of its caller, as a type: `Permitted<ReadOwnUsage>`.
pub trait Requirement {
    fn check(caller: &Caller) -> Result<(), Forbidden>;
}

/// A caller with a profile who meets the requirement `R`.
pub struct Permitted<R> {
    pub caller: Caller,
    requirement: PhantomData<R>,
}

impl<R: Requirement> FromRequest for Permitted<R> {
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
        impl Requirement for $name {
            fn check(caller: &Caller) -> Result<(), Forbidden> {
                caller.$check(Permission::$permission)
            }
        })+
    };
}

requirements! {
    ReadOwnProfile = may(UsersRead);
    WriteOwnProfile = may(UsersWrite);
    ReadOwnPlan = may(PlansRead);
    /// Changing one's own plan is a matter of money.
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
