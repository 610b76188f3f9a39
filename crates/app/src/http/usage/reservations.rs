//! Reservations: an amount is reserved before it is used, and settled afterwards with what was really used.
//!
//! Every request is repeatable: the same settle or release again gets the first response; another is a conflict.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Path};
use chrono::{DateTime, TimeDelta, Utc};
use domain::identity::{Caller, Permission};
use domain::usage::{Hold, HoldId, HoldStatus};
use serde::{Deserialize, Serialize};
use services::identity::callers::CallerService;
use services::usage::UsageService;
use services::usage::commands::{
    ChangeReservationCommand, ReservationAction, ReservationChanged, ReservationOwner, ReserveCommand, ReserveOutcome,
};
use utoipa::ToSchema;
use uuid::Uuid;
use validator::Validate;

use super::super::caller::{PermittedCaller, WriteUsage};
use super::super::entitlements::DecisionView;
use super::super::idempotent::{RequestKey, now_or_again};
use super::super::problem::{Problem, ProblemView};
use super::super::validation::ValidBody;
use super::demands::{ConsumeIn, admit, usage_request};
use super::refusals::refusal;

/// How long a reservation lasts by default, in seconds.
const TTL_DEFAULT: i64 = 300;

/// How long it may last, in seconds: a day.
const TTL_MAX: i64 = 24 * 60 * 60;

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReserveIn {
    /// The user; the caller by default. Another user needs `usage:write` with `on_behalf`, or an administrator.
    #[serde(default)]
    user_id: Option<Uuid>,
    #[validate(length(min = 1, max = 50))]
    #[schema(example = "ai_requests", min_length = 1, max_length = 50)]
    feature_id: String,
    /// How much is reserved; 1 by default.
    #[serde(default, deserialize_with = "crate::http::validation::whole")]
    #[validate(range(min = 1))]
    #[schema(minimum = 1)]
    amount: Option<i64>,
    /// For how many seconds; 300 by default. If it is not settled by then, it expires.
    #[serde(default, deserialize_with = "crate::http::validation::whole")]
    #[validate(range(min = 1, max = 86_400))]
    #[schema(minimum = 1, maximum = 86_400)]
    ttl_seconds: Option<i64>,
    /// A repeat with this key reserves once. The header `Idempotency-Key` does the same; without either, one is made.
    #[serde(default)]
    #[validate(length(min = 1, max = 255))]
    #[schema(min_length = 1, max_length = 255, pattern = "^[!-~]([ -~]*[!-~])?$")]
    idempotency_key: Option<String>,
}

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettleIn {
    /// What was really used: if less, the rest is released; if more, it is counted too.
    #[serde(deserialize_with = "crate::http::validation::whole")]
    #[validate(required, range(min = 0))]
    #[schema(minimum = 0, value_type = i64)]
    amount: Option<i64>,
}

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtendIn {
    /// How much is to be reserved in all from now on; a larger reservation stays as it is.
    #[serde(default, deserialize_with = "crate::http::validation::whole")]
    #[validate(range(min = 1))]
    #[schema(minimum = 1)]
    amount: Option<i64>,
    /// For how many seconds from now; 300 by default. A later end stays as it is.
    #[serde(default, deserialize_with = "crate::http::validation::whole")]
    #[validate(range(min = 1, max = 86_400))]
    #[schema(minimum = 1, maximum = 86_400)]
    ttl_seconds: Option<i64>,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum ReservationStatus {
    Pending,
    Settled,
    Released,
    Expired,
}

/// A reservation, with the figures after it.
#[derive(Serialize, ToSchema)]
pub struct ReservationView {
    pub id: Uuid,
    /// The reserved amount; once it is settled, the used amount.
    pub amount: i64,
    #[schema(value_type = ReservationStatus)]
    pub status: HoldStatus,
    pub expires_at: DateTime<Utc>,
    #[serde(flatten)]
    pub decision: DecisionView,
    /// The idempotency key under which it is stored: the one that was sent, or a generated one.
    pub idempotency_key: String,
}

/// A changed reservation, with the figures after it.
#[derive(Serialize, ToSchema)]
pub struct ReservationChangeView {
    pub id: Uuid,
    /// The reserved amount; once it is settled, the used amount.
    pub amount: i64,
    /// The reserved amount.
    pub held: i64,
    /// The part of the used amount beyond the reservation or the limit.
    pub overage: i64,
    #[schema(value_type = ReservationStatus)]
    pub status: HoldStatus,
    pub expires_at: DateTime<Utc>,
    #[serde(flatten)]
    pub decision: DecisionView,
}

/// Reserves an amount. 201 means reserved and durable; a refusal reserves nothing and uses up no key.
#[utoipa::path(post, path = "/api/usage/reservations", tag = "usage", operation_id = "reserve", request_body = ReserveIn,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat hold once; the body's key says the same")),
    responses(
    (status = 201, description = "Held", body = ReservationView),
    (status = 402, description = "The limit is reached, and the tokens do not pay for more", body = ProblemView),
    (status = 404, description = "No such feature, or no such user", body = ProblemView),
    (status = 429, description = "The limit is reached, with the numbers and the reset time", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn reserve(
    asking: PermittedCaller<WriteUsage>,
    key: RequestKey,
    usage: Data<UsageService>,
    callers: Data<CallerService>,
    input: ValidBody<ReserveIn>,
) -> Result<HttpResponse, Problem> {
    let ReserveIn { user_id, feature_id, amount, ttl_seconds, idempotency_key } = input.body;
    let input = ConsumeIn { user_id, feature_id, amount, idempotency_key };
    let request = usage_request(&asking.caller, &input, key.into_key(), &usage)?;
    admit(&callers, &asking.caller, request.user_id).await?;
    let (amount, idempotency_key) = (request.amount, request.idempotency_key.as_str().to_owned());
    match usage.execute(ReserveCommand { request, ttl: ttl(ttl_seconds) }).await? {
        ReserveOutcome::Reserved { reservation, decision, replayed } => Ok(now_or_again(StatusCode::CREATED, replayed)
            .json(ReservationView {
                id: reservation.id.0,
                amount,
                status: HoldStatus::Pending,
                expires_at: reservation.expires_at,
                decision: decision.into(),
                idempotency_key,
            })),
        ReserveOutcome::Refused(decision) => Err(refusal(decision)),
    }
}

/// Settles a reservation with the amount really used, and ends it. It is counted in the period in which it was
/// reserved, even if the reservation has expired meanwhile.
#[utoipa::path(post, path = "/api/usage/reservations/{reservation_id}/settle", tag = "usage", operation_id = "settle_reservation",
    request_body = SettleIn, params(("reservation_id" = Uuid, Path, description = "The reservation")), responses(
    (status = 200, description = "Counted", body = ReservationChangeView),
    (status = 404, description = "No such reservation", body = ProblemView),
    (status = 409, description = "It was settled with another amount, or released", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn settle(
    asking: PermittedCaller<WriteUsage>,
    id: Path<String>,
    usage: Data<UsageService>,
    input: ValidBody<SettleIn>,
) -> Result<HttpResponse, Problem> {
    let action = ReservationAction::Settle(input.body.amount.unwrap_or_default());
    change(&asking.caller, &id, action, usage).await
}

/// Releases a reservation: nothing was used.
#[utoipa::path(post, path = "/api/usage/reservations/{reservation_id}/release", tag = "usage", operation_id = "release_reservation",
    params(("reservation_id" = Uuid, Path, description = "The reservation")), responses(
    (status = 200, description = "Given back", body = ReservationChangeView),
    (status = 404, description = "No such reservation", body = ProblemView),
    (status = 409, description = "It was settled", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn release(
    asking: PermittedCaller<WriteUsage>,
    id: Path<String>,
    usage: Data<UsageService>,
) -> Result<HttpResponse, Problem> {
    change(&asking.caller, &id, ReservationAction::Release, usage).await
}

/// Extends a reservation in time or in amount. If the amount is refused, the reservation stays as it is.
#[utoipa::path(post, path = "/api/usage/reservations/{reservation_id}/extend", tag = "usage", operation_id = "extend_reservation",
    request_body = ExtendIn, params(("reservation_id" = Uuid, Path, description = "The reservation")), responses(
    (status = 200, description = "Held on", body = ReservationChangeView),
    (status = 402, description = "The limit is reached, and the tokens do not pay for more", body = ProblemView),
    (status = 404, description = "No such reservation", body = ProblemView),
    (status = 409, description = "It has ended", body = ProblemView),
    (status = 429, description = "The limit is reached, with the numbers and the reset time", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn extend(
    asking: PermittedCaller<WriteUsage>,
    id: Path<String>,
    usage: Data<UsageService>,
    input: ValidBody<ExtendIn>,
) -> Result<HttpResponse, Problem> {
    let ExtendIn { amount, ttl_seconds } = input.body;
    change(&asking.caller, &id, ReservationAction::Extend { amount, ttl: ttl(ttl_seconds) }, usage).await
}

fn ttl(seconds: Option<i64>) -> TimeDelta {
    TimeDelta::seconds(seconds.unwrap_or(TTL_DEFAULT).clamp(1, TTL_MAX))
}

async fn change(
    caller: &Caller,
    id: &str,
    action: ReservationAction,
    usage: Data<UsageService>,
) -> Result<HttpResponse, Problem> {
    let reservation_id =
        Uuid::try_parse(id).map(HoldId).map_err(|_| Problem::not_found("There is no such reservation."))?;
    let may_change_any = caller.may_act_for_others(Permission::UsageWrite);
    let owner = if may_change_any { ReservationOwner::Any } else { ReservationOwner::User(caller.user_id) };
    let command = ChangeReservationCommand { reservation_id, owner, action };
    let ReservationChanged { reservation, decision, replayed } = usage.execute(command).await?;
    if !decision.allowed {
        return Err(refusal(decision));
    }
    let Hold { id, amount: held, settled, overage, status, expires_at, .. } = reservation;
    let amount = settled.unwrap_or(held);
    Ok(now_or_again(StatusCode::OK, replayed).json(ReservationChangeView {
        id: id.0,
        amount,
        held,
        overage,
        status,
        expires_at,
        decision: decision.into(),
    }))
}
