//! The user's own second factor: time-based one-time codes, and recovery codes.

use std::sync::Arc;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use services::identity::accounts::AccountService;
use utoipa::ToSchema;
use validator::Validate;

use super::caller::WriteOwnProfile;
use super::own_account::{OwnAccounts, prove};
use super::problem::{Problem, ProblemView};
use super::rate_limits::RateLimits;
use super::recent::{InPerson, RecentlyInPerson};
use super::spawn::detached;
use super::validation::ValidBody;

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TotpCodeIn {
    /// Six digits; to remove the factor, a recovery code works too.
    #[validate(length(min = 1, max = 64))]
    #[schema(min_length = 1, max_length = 64)]
    code: String,
}

#[derive(Serialize, ToSchema)]
pub struct OfferedFactorView {
    /// In base32, shown only once.
    pub secret: String,
    /// For a QR code that a device reads.
    pub otpauth_url: String,
}

#[derive(Serialize, ToSchema)]
pub struct RecoveryCodesView {
    /// Ten, each valid for one log-in without the device; shown only once.
    pub recovery_codes: Vec<String>,
}

/// Creates the secret of a second factor. Log-ins ask for it once a code is confirmed. Needs a recent authentication.
#[utoipa::path(post, path = "/api/auth/totp/enroll", tag = "identity", operation_id = "enroll_totp", responses(
    (status = 200, description = "The secret, shown this once", body = OfferedFactorView),
    (status = 404, description = "Accounts are kept by Supabase here", body = ProblemView),
    (status = 409, description = "There is a second factor already", body = ProblemView),
), security(("token" = [])))]
pub async fn enroll_totp(
    accounts: OwnAccounts,
    me: RecentlyInPerson<WriteOwnProfile>,
) -> Result<HttpResponse, Problem> {
    let offered = detached(async move { accounts.0.offer_second_factor(me.caller.user_id).await }).await?;
    let view = OfferedFactorView { secret: offered.secret, otpauth_url: offered.otpauth_url };
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(view))
}

/// Confirms the factor with its first code. From now on each log-in asks for one.
#[utoipa::path(post, path = "/api/auth/totp/confirm", tag = "identity", operation_id = "confirm_totp",
    request_body = TotpCodeIn, responses(
    (status = 200, description = "The recovery codes, shown this once", body = RecoveryCodesView),
    (status = 401, description = "No or bad credentials, or the code is wrong (`totp_wrong`)", body = ProblemView),
    (status = 404, description = "Nothing to confirm, or accounts are kept by Supabase here", body = ProblemView),
    (status = 409, description = "It is confirmed already", body = ProblemView),
    (status = 429, description = "Too many attempts", body = ProblemView),
), security(("token" = [])))]
pub async fn confirm_totp(
    accounts: OwnAccounts,
    me: InPerson,
    request: HttpRequest,
    limits: Data<RateLimits>,
    input: ValidBody<TotpCodeIn>,
) -> Result<HttpResponse, Problem> {
    let (user_id, code) = (me.caller.user_id, input.body.code);
    let recovery_codes = prove(accounts, me, &request, limits, async move |accounts: Arc<AccountService>| {
        accounts.confirm_second_factor(user_id, &code).await
    })
    .await?;
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(RecoveryCodesView { recovery_codes }))
}

/// Removes the second factor, by one of its codes or a recovery code.
#[utoipa::path(delete, path = "/api/auth/totp", tag = "identity", operation_id = "remove_totp",
    request_body = TotpCodeIn, responses(
    (status = 204, description = "Log-ins ask for the password alone"),
    (status = 401, description = "No or bad credentials, or the code is wrong (`totp_wrong`)", body = ProblemView),
    (status = 404, description = "There is none, or accounts are kept by Supabase here", body = ProblemView),
    (status = 429, description = "Too many attempts", body = ProblemView),
), security(("token" = [])))]
pub async fn remove_totp(
    accounts: OwnAccounts,
    me: InPerson,
    request: HttpRequest,
    limits: Data<RateLimits>,
    input: ValidBody<TotpCodeIn>,
) -> Result<HttpResponse, Problem> {
    let (user_id, code) = (me.caller.user_id, input.body.code);
    prove(accounts, me, &request, limits, async move |accounts: Arc<AccountService>| {
        accounts.remove_second_factor(user_id, &code).await
    })
    .await?;
    Ok(HttpResponse::NoContent().finish())
}
