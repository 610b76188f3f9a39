//! Identity: sign-up, log-in, refresh and log-out of the built-in accounts. If Supabase keeps the identities, these
//! routes answer 404 and say where to go.

use std::net::IpAddr;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, USER_AGENT};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use domain::identity::log_in_failures::LogInRefused;
use domain::identity::{Email, Role};
use serde::{Deserialize, Serialize};
use services::identity::accounts::{AccountError, AccountService, RequestOrigin, SignUp, SignedIn};
use utoipa::ToSchema;
use uuid::Uuid;
use validator::Validate;

use super::problem::{Problem, ProblemView};
use super::rate_limits::{LogInAttempt, LogInVerdict, RateLimits, attempt_refused, client_network};
use super::spawn::detached;
use super::validation::{ValidBody, one_line};

/// The built-in accounts; `None` if Supabase keeps the identities.
pub struct BuiltIn(pub Option<std::sync::Arc<AccountService>>);

impl BuiltIn {
    pub(super) fn service(&self) -> Result<std::sync::Arc<AccountService>, Problem> {
        let detail = "Accounts are kept by Supabase here: sign up and log in there, and bring its access token.";
        self.0.clone().ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "identity_elsewhere", detail))
    }
}

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignUpIn {
    #[validate(length(min = 3, max = 254))]
    #[schema(format = "email", min_length = 3, max_length = 254)]
    email: String,
    /// 12 to 128 characters.
    #[validate(length(min = 12, max = 128))]
    #[schema(format = "password", min_length = 12, max_length = 128)]
    password: String,
    /// The user's name; by default the part of the e-mail before the @.
    #[serde(default)]
    #[validate(length(min = 1, max = 100), custom(function = "one_line"))]
    #[schema(
        pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$",
        min_length = 1,
        max_length = 100
    )]
    name: Option<String>,
}

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogInIn {
    #[validate(length(min = 1, max = 254))]
    #[schema(format = "email", min_length = 1, max_length = 254)]
    email: String,
    #[validate(length(min = 1, max = 1024))]
    #[schema(format = "password", min_length = 1, max_length = 1024)]
    password: String,
    /// A code of the second factor, or a recovery code, if the account has one.
    #[serde(default)]
    #[validate(length(min = 1, max = 64))]
    #[schema(min_length = 1, max_length = 64)]
    totp: Option<String>,
}

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshIn {
    #[validate(length(min = 1, max = 512))]
    #[schema(min_length = 1, max_length = 512)]
    refresh_token: String,
}

#[derive(Serialize, ToSchema)]
pub struct SignedInView {
    pub access_token: String,
    /// Valid for one exchange; for 30 seconds after it, a repeat gets the same successor.
    pub refresh_token: String,
    #[schema(example = "Bearer")]
    pub token_type: &'static str,
    /// Seconds until the access token expires.
    pub expires_in: u64,
    pub user: SignedInUserView,
}

#[derive(Serialize, ToSchema)]
pub struct SignedInUserView {
    pub id: Uuid,
    pub email: String,
    pub name: String,
    #[schema(value_type = String, example = "user")]
    pub role: Role,
    #[schema(example = "free")]
    pub plan_id: String,
}

impl From<AccountError> for Problem {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::EmailTaken => Self::conflict("email_taken", &error),
            AccountError::PasswordUnfit => Self::invalid_field("password", "has 12 to 128 characters"),
            AccountError::PasswordCommon(why) => Self::invalid_field("password", why.to_string()),
            AccountError::PasswordUnchanged => Self::invalid_field("password", "is the one that is in use"),
            AccountError::TotpRequired => {
                let detail =
                    "The account has a second factor: send the `totp` of your device, or a recovery code, too.";
                Self::new(StatusCode::UNAUTHORIZED, "totp_required", detail)
            }
            AccountError::TotpWrong => {
                let detail = "The code is wrong, or was used before: wait for the next one.";
                Self::new(StatusCode::UNAUTHORIZED, "totp_wrong", detail)
            }
            AccountError::TotpEnrolled => Self::conflict("totp_enrolled", &error),
            AccountError::TotpMissing => Self::not_found("The account has no second factor."),
            AccountError::SessionNotFound => Self::not_found("There is no such session."),
            AccountError::WrongCredentials => {
                Self::new(StatusCode::UNAUTHORIZED, "wrong_credentials", "The e-mail or the password is wrong.")
            }
            AccountError::RefreshRefused => {
                let detail = "The refresh token is not valid any more: log in again.";
                Self::new(StatusCode::UNAUTHORIZED, "refresh_refused", detail)
            }
            AccountError::Secret(why) if why.0 == adapters::secrets::passwords::BUSY => {
                Self::unavailable("busy", "Too many are logging in just now. Send the request again.")
            }
            AccountError::Secret(why) => Self::internal(&why),
            AccountError::Store(error) => error.into(),
        }
    }
}

/// Creates an account with its profile, and logs it in.
#[utoipa::path(post, path = "/api/auth/signup", tag = "identity", operation_id = "sign_up", request_body = SignUpIn, responses(
    (status = 201, description = "Signed up and logged in", body = SignedInView),
    (status = 404, description = "Accounts are kept by Supabase here", body = ProblemView),
    (status = 409, description = "The e-mail is in use", body = ProblemView),
    (status = 429, description = "Too many sign-ups from this address", body = ProblemView),
))]
pub async fn sign_up(
    request: HttpRequest,
    accounts: Data<BuiltIn>,
    limits: Data<RateLimits>,
    input: ValidBody<SignUpIn>,
) -> Result<HttpResponse, Problem> {
    let accounts = accounts.service()?;
    let SignUpIn { email, password, name } = input.body;
    let email = Email::parse(&email).map_err(|why| Problem::invalid_field("email", format!("is refused: {why}")))?;
    limits.check_signup(limits.address_of(&request))?;
    let origin = origin(&request, &limits);
    let signed_in = detached(async move { accounts.sign_up(SignUp { email, password, name, origin }).await }).await?;
    Ok(HttpResponse::Created().insert_header((CACHE_CONTROL, "no-store")).json(view(signed_in)))
}

/// Exchanges e-mail and password for tokens.
#[utoipa::path(post, path = "/api/auth/login", tag = "identity", operation_id = "log_in", request_body = LogInIn, responses(
    (status = 200, description = "Logged in", body = SignedInView),
    (status = 401, description = "Wrong e-mail or password, or a code is missing (`totp_required`) or wrong (`totp_wrong`)", body = ProblemView),
    (status = 404, description = "Accounts are kept by Supabase here", body = ProblemView),
    (status = 429, description = "Too many attempts", body = ProblemView),
))]
pub async fn log_in(
    request: HttpRequest,
    accounts: Data<BuiltIn>,
    limits: Data<RateLimits>,
    input: ValidBody<LogInIn>,
) -> Result<HttpResponse, Problem> {
    let accounts = accounts.service()?;
    let LogInIn { email, password, totp } = input.body;
    // An e-mail that cannot exist is answered like one without an account.
    let spelling = Email::stored_spellings(&email).pop().unwrap_or_default();
    let (address, origin) = (limits.address_of(&request), origin(&request, &limits));
    limits.check_login(address)?;
    let counted = Counted { limits: limits.into_inner(), accounts: Arc::clone(&accounts), address };
    let signed_in = detached(async move {
        let attempt = counted.begin(&spelling).await?;
        counted.end(attempt, accounts.log_in(&email, password, totp, origin).await)
    })
    .await?;
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(view(signed_in)))
}

/// Exchanges a refresh token for a new pair. Within 30 seconds the same token gets the same successor again, as two
/// tabs of a browser need it; later, or after the successor was exchanged, it ends its session.
#[utoipa::path(post, path = "/api/auth/refresh", tag = "identity", operation_id = "refresh", request_body = RefreshIn, responses(
    (status = 200, description = "A new pair of tokens", body = SignedInView),
    (status = 401, description = "The token is not valid any more", body = ProblemView),
    (status = 404, description = "Accounts are kept by Supabase here", body = ProblemView),
))]
pub async fn refresh(
    request: HttpRequest,
    accounts: Data<BuiltIn>,
    limits: Data<RateLimits>,
    input: ValidBody<RefreshIn>,
) -> Result<HttpResponse, Problem> {
    let accounts = accounts.service()?;
    limits.check_refresh(limits.address_of(&request))?;
    let signed_in = detached(async move { accounts.refresh(&input.body.refresh_token).await }).await?;
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(view(signed_in)))
}

/// Ends the session of a refresh token, even if it has ended before.
#[utoipa::path(post, path = "/api/auth/logout", tag = "identity", operation_id = "log_out", request_body = RefreshIn, responses(
    (status = 204, description = "The session is over"),
    (status = 404, description = "Accounts are kept by Supabase here", body = ProblemView),
))]
pub async fn log_out(
    request: HttpRequest,
    accounts: Data<BuiltIn>,
    limits: Data<RateLimits>,
    input: ValidBody<RefreshIn>,
) -> Result<HttpResponse, Problem> {
    let accounts = accounts.service()?;
    limits.check_refresh(limits.address_of(&request))?;
    detached(async move { accounts.log_out(&input.body.refresh_token).await }).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// The client's user agent, at most 255 characters of it, and its network.
fn origin(request: &HttpRequest, limits: &RateLimits) -> RequestOrigin {
    let sent = request.headers().get(USER_AGENT).and_then(|sent| sent.to_str().ok());
    RequestOrigin {
        user_agent: sent.map(|sent| sent.chars().take(255).collect()),
        network: Some(client_network(limits.address_of(request)).to_string()),
    }
}

/// Counts attempts to prove that one owns an account.
pub(super) struct Counted {
    pub limits: Arc<RateLimits>,
    pub accounts: Arc<AccountService>,
    pub address: IpAddr,
}

impl Counted {
    /// Lets an attempt through, or returns how long it waits. Only if other networks used up the account's limit, the
    /// database is asked whether this network logged in before.
    pub(super) async fn begin(&self, account: &str) -> Result<LogInAttempt, Problem> {
        match self.limits.begin_attempt(self.address, account, false) {
            Ok(attempt) => Ok(attempt),
            Err(refused @ LogInRefused::Account(_)) => {
                let network = client_network(self.address).to_string();
                let is_known = self.accounts.knows_network(account, &network).await?;
                let again =
                    if is_known { self.limits.begin_attempt(self.address, account, true) } else { Err(refused) };
                again.map_err(attempt_refused)
            }
            Err(refused) => Err(attempt_refused(refused)),
        }
    }

    pub(super) fn end<T>(&self, attempt: LogInAttempt, outcome: Result<T, AccountError>) -> Result<T, Problem> {
        let verdict = match &outcome {
            Ok(_) => LogInVerdict::Right,
            Err(AccountError::WrongCredentials | AccountError::TotpWrong) => LogInVerdict::Wrong,
            Err(_) => LogInVerdict::Undecided,
        };
        self.limits.end_attempt(attempt, verdict);
        Ok(outcome?)
    }
}

fn view(signed_in: SignedIn) -> SignedInView {
    let SignedIn { access_token, refresh_token, user } = signed_in;
    SignedInView {
        access_token: access_token.token,
        refresh_token,
        token_type: "Bearer",
        expires_in: access_token.expires_in_seconds,
        user: SignedInUserView {
            id: user.id.0,
            email: user.email.map(|email| email.to_string()).unwrap_or_default(),
            name: user.name,
            role: user.role,
            plan_id: user.plan_id.into(),
        },
    }
}
