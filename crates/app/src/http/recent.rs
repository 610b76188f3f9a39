//! Recent authentication: what only the user in person may do, and what needs a recent authentication.
//!
//! `InPerson` accepts an access token and no API key. `RecentCaller<R>` is `PermittedCaller<R>` for users who logged
//! in, or sent their password again, within `auth.reauthentication_minutes`; an API key acts by its permissions.
//! `RecentlyInPerson<R>` is both. The session is read in one short transaction, only on the routes that need it.

use std::marker::PhantomData;
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{FromRequest, HttpRequest};
use chrono::TimeDelta;
use domain::identity::{Caller, Credential, RecencyRule};
use futures_util::future::LocalBoxFuture;
use services::identity::callers::CallerService;
use uuid::Uuid;

use super::caller::{CallerRequirement, caller, refusal, shown_token};
use super::problem::Problem;
use super::spawn::detached;
use crate::settings::shape::Settings;

/// The user in person, with the session of the access token.
pub struct InPerson {
    pub caller: Caller,
    pub session_id: Option<Uuid>,
}

/// A caller who meets the requirement, and authenticated recently if it is the user in person.
pub struct RecentCaller<R> {
    pub caller: Caller,
    requirement: PhantomData<R>,
}

/// The user in person, who meets the requirement and authenticated recently.
pub struct RecentlyInPerson<R> {
    pub caller: Caller,
    requirement: PhantomData<R>,
}

/// The access token, and what is needed to check it.
struct Shown {
    callers: Arc<CallerService>,
    rule: RecencyRule,
    token: String,
}

impl FromRequest for InPerson {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let found = caller(request).and_then(|caller| Ok((in_person(caller)?, shown(request)?)));
        Box::pin(async move {
            let (caller, shown) = found?;
            let session_id = shown.session_id().await?;
            Ok(Self { caller, session_id })
        })
    }
}

impl<R: CallerRequirement + 'static> FromRequest for RecentCaller<R> {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let found = permitted::<R>(request).and_then(|caller| {
            let shown = if caller.credential == Credential::Token { Some(shown(request)?) } else { None };
            Ok((caller, shown))
        });
        Box::pin(async move {
            let (caller, shown) = found?;
            if let Some(shown) = shown {
                shown.check().await?;
            }
            Ok(Self { caller, requirement: PhantomData })
        })
    }
}

impl<R: CallerRequirement + 'static> FromRequest for RecentlyInPerson<R> {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let found = permitted::<R>(request).and_then(|caller| Ok((in_person(caller)?, shown(request)?)));
        Box::pin(async move {
            let (caller, shown) = found?;
            shown.check().await?;
            Ok(Self { caller, requirement: PhantomData })
        })
    }
}

fn permitted<R: CallerRequirement>(request: &HttpRequest) -> Result<Caller, Problem> {
    let caller = caller(request)?;
    R::check(&caller)?;
    Ok(caller)
}

fn in_person(caller: Caller) -> Result<Caller, Problem> {
    match caller.credential {
        Credential::Token => Ok(caller),
        Credential::Key { .. } => {
            let detail = "No API key may do this: come in person, with the access token of a log-in.";
            Err(Problem::new(StatusCode::FORBIDDEN, "person_required", detail))
        }
    }
}

fn shown(request: &HttpRequest) -> Result<Shown, Problem> {
    let missing = || Problem::internal(&"the services of callers are not there");
    let settings = request.app_data::<Data<Settings>>().ok_or_else(missing)?;
    let callers = request.app_data::<Data<CallerService>>().ok_or_else(missing)?.clone().into_inner();
    let within = TimeDelta::minutes(settings.auth.reauthentication_minutes.into());
    let token = shown_token(request, &settings.api_keys.prefix).ok_or_else(Problem::unauthorized)?;
    Ok(Shown { callers, rule: RecencyRule { within }, token })
}

/// The problem if the user did not authenticate recently enough.
pub fn reauthentication_required() -> Problem {
    let detail = "Prove first that you are there: log in again, or send your password to POST /api/auth/reauthenticate. \
        Where Supabase keeps the accounts, log in there again.";
    Problem::new(StatusCode::FORBIDDEN, "reauthentication_required", detail)
}

impl Shown {
    async fn session_id(&self) -> Result<Option<Uuid>, Problem> {
        self.callers
            .read_token(&self.token)
            .await
            .map(|identity| identity.session_id)
            .map_err(|error| refusal(error, Problem::unauthorized))
    }

    async fn check(self) -> Result<(), Problem> {
        let Self { callers, rule, token } = self;
        if rule.is_off() {
            return Ok(());
        }
        let identity = callers.read_token(&token).await.map_err(|error| refusal(error, Problem::unauthorized))?;
        let now = callers.now();
        let proven = detached(async move { callers.authenticated_at(&identity).await }).await?;
        if rule.is_recent(proven, now) { Ok(()) } else { Err(reauthentication_required()) }
    }
}
