//! The user's own account in the built-in identity: its password, its sessions, and reauthentication.

use std::future::{Ready, ready};
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::web::{Data, Json, Path};
use actix_web::{FromRequest, HttpRequest, HttpResponse};
use chrono::{DateTime, Utc};
use ports::identity::Session;
use serde::{Deserialize, Serialize};
use services::identity::accounts::{AccountError, AccountService};
use services::identity::own_account::PasswordChange;
use utoipa::ToSchema;
use uuid::Uuid;
use validator::Validate;

use super::identity::{BuiltIn, Counted};
use super::pages::{PageQuery, PageView};
use super::problem::{Problem, ProblemView};
use super::rate_limits::RateLimits;
use super::recent::{InPerson, reauthentication_required};
use super::spawn::detached;
use super::validation::{ValidBody, ValidQuery};

/// The built-in accounts, extracted before anything else: without them no route here works.
pub struct OwnAccounts(pub Arc<AccountService>);

impl FromRequest for OwnAccounts {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let missing = || Problem::internal(&"the accounts are not there");
        let accounts = request.app_data::<Data<BuiltIn>>().ok_or_else(missing);
        ready(accounts.and_then(|accounts| accounts.service()).map(Self))
    }
}

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordChangeIn {
    /// The current password.
    #[validate(length(min = 1, max = 1024))]
    #[schema(format = "password", min_length = 1, max_length = 1024)]
    current: String,
    /// The new one: 12 to 128 characters, and not a common password.
    #[validate(length(min = 12, max = 128))]
    #[schema(format = "password", min_length = 12, max_length = 128)]
    password: String,
    /// A code of the second factor, or a recovery code, if the account has one.
    #[serde(default)]
    #[validate(length(min = 1, max = 64))]
    #[schema(min_length = 1, max_length = 64)]
    totp: Option<String>,
}

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReauthenticationIn {
    #[validate(length(min = 1, max = 1024))]
    #[schema(format = "password", min_length = 1, max_length = 1024)]
    password: String,
    /// A code of the second factor, or a recovery code, if the account has one.
    #[serde(default)]
    #[validate(length(min = 1, max = 64))]
    #[schema(min_length = 1, max_length = 64)]
    totp: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct SessionView {
    pub id: Uuid,
    /// When the user logged in.
    pub created_at: DateTime<Utc>,
    /// When it was opened, or last refreshed.
    pub last_used_at: DateTime<Utc>,
    /// When the user last authenticated: by the log-in, or by the password again.
    pub authenticated_at: DateTime<Utc>,
    /// When it ends unless it is refreshed.
    pub expires_at: DateTime<Utc>,
    /// The user agent of the client.
    #[schema(required = true)]
    pub user_agent: Option<String>,
    /// Whether it is the session of this request.
    pub current: bool,
}

/// Changes the caller's own password. Ends the other sessions; this one goes on.
#[utoipa::path(post, path = "/api/auth/password/change", tag = "identity", operation_id = "change_password",
    request_body = PasswordChangeIn, responses(
    (status = 204, description = "It is changed, and the other sessions are over"),
    (status = 401, description = "No or bad credentials, or the current password or the code is wrong (`wrong_credentials`, `totp_required`, `totp_wrong`)", body = ProblemView),
    (status = 404, description = "Accounts are kept by Supabase here", body = ProblemView),
    (status = 429, description = "Too many attempts", body = ProblemView),
), security(("token" = [])))]
pub async fn change_password(
    accounts: OwnAccounts,
    me: InPerson,
    request: HttpRequest,
    limits: Data<RateLimits>,
    input: ValidBody<PasswordChangeIn>,
) -> Result<HttpResponse, Problem> {
    let PasswordChangeIn { current, password, totp } = input.body;
    let change = PasswordChange { current, password, code: totp };
    let (user_id, session_id) = (me.caller.user_id, me.session_id);
    prove(accounts, me, &request, limits, async move |accounts: Arc<AccountService>| {
        accounts.change_password(user_id, session_id, change).await
    })
    .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Authenticates the user again, by the password, for routes that need a recent authentication.
#[utoipa::path(post, path = "/api/auth/reauthenticate", tag = "identity", operation_id = "reauthenticate",
    request_body = ReauthenticationIn, responses(
    (status = 204, description = "The session is proven anew"),
    (status = 401, description = "No or bad credentials, or the password is wrong (`wrong_credentials`)", body = ProblemView),
    (status = 404, description = "Accounts are kept by Supabase here", body = ProblemView),
    (status = 429, description = "Too many attempts", body = ProblemView),
), security(("token" = [])))]
pub async fn reauthenticate(
    accounts: OwnAccounts,
    me: InPerson,
    request: HttpRequest,
    limits: Data<RateLimits>,
    input: ValidBody<ReauthenticationIn>,
) -> Result<HttpResponse, Problem> {
    let ReauthenticationIn { password, totp } = input.body;
    let (user_id, session_id) = (me.caller.user_id, me.session_id);
    prove(accounts, me, &request, limits, async move |accounts: Arc<AccountService>| {
        accounts.reauthenticate(user_id, session_id, password, totp).await
    })
    .await
    .map_err(|problem| if problem.code == "not_found" { reauthentication_required() } else { problem })?;
    Ok(HttpResponse::NoContent().finish())
}

/// Runs work that takes a password or a code, counted like a log-in.
pub async fn prove<T, W, F>(
    accounts: OwnAccounts,
    me: InPerson,
    request: &HttpRequest,
    limits: Data<RateLimits>,
    work: W,
) -> Result<T, Problem>
where
    T: Send + 'static,
    W: FnOnce(Arc<AccountService>) -> F + Send + 'static,
    F: Future<Output = Result<T, AccountError>> + Send + 'static,
{
    let (accounts, address, user_id) = (accounts.0, limits.address_of(request), me.caller.user_id);
    limits.check_login(address)?;
    let counted = Counted { limits: limits.into_inner(), accounts: Arc::clone(&accounts), address };
    detached(async move {
        let account = accounts.address_of(user_id).await?;
        let attempt = counted.begin(account.as_str()).await?;
        counted.end(attempt, work(accounts).await)
    })
    .await
}

/// Lists the caller's own open sessions, newest first.
#[utoipa::path(get, path = "/api/auth/sessions", tag = "identity", operation_id = "list_own_sessions", params(PageQuery), responses(
    (status = 200, description = "A page of sessions", body = PageView<SessionView>),
    (status = 404, description = "Accounts are kept by Supabase here", body = ProblemView),
), security(("token" = [])))]
pub async fn list_own_sessions(
    accounts: OwnAccounts,
    me: InPerson,
    query: ValidQuery<PageQuery>,
) -> Result<Json<PageView<SessionView>>, Problem> {
    let (after, rows) = (query.0.after()?, query.0.rows());
    let found = detached(async move { accounts.0.list_sessions(me.caller.user_id, after, rows).await }).await?;
    Ok(Json(query.0.page(&found, AccountService::position, |session| view(session, me.session_id))))
}

/// Ends one of the caller's own sessions.
#[utoipa::path(delete, path = "/api/auth/sessions/{session_id}", tag = "identity", operation_id = "end_own_session",
    params(("session_id" = Uuid, Path, description = "Which")), responses(
    (status = 204, description = "It is over, also if it was before"),
    (status = 404, description = "No such session, or it is another's", body = ProblemView),
), security(("token" = [])))]
pub async fn end_own_session(accounts: OwnAccounts, me: InPerson, id: Path<String>) -> Result<HttpResponse, Problem> {
    let id = Uuid::try_parse(&id).map_err(|_| Problem::from(AccountError::SessionNotFound))?;
    detached(async move { accounts.0.end_session(me.caller.user_id, id).await }).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Ends all of the caller's own sessions but the current one.
#[utoipa::path(delete, path = "/api/auth/sessions", tag = "identity", operation_id = "end_other_sessions", responses(
    (status = 204, description = "They are over"),
    (status = 404, description = "Accounts are kept by Supabase here", body = ProblemView),
), security(("token" = [])))]
pub async fn end_other_sessions(accounts: OwnAccounts, me: InPerson) -> Result<HttpResponse, Problem> {
    detached(async move { accounts.0.end_other_sessions(me.caller.user_id, me.session_id).await }).await?;
    Ok(HttpResponse::NoContent().finish())
}

fn view(session: &Session, current: Option<Uuid>) -> SessionView {
    SessionView {
        id: session.id,
        created_at: session.created_at,
        last_used_at: session.last_used_at,
        authenticated_at: session.authenticated_at,
        expires_at: session.expires_at,
        user_agent: session.user_agent.clone(),
        current: current == Some(session.id),
    }
}
