//! Refusals: usage that was not counted, as problems with every figure that they depend on.

use actix_web::http::StatusCode;
use domain::entitlements::{Decision, Reason};
use domain::usage::HoldStatus;
use ports::store::StoreError;
use serde_json::{Map, Value};
use services::usage::call_commands::ReserveCallError;
use services::usage::commands::{CommitError, ConsumeError, ReservationError, UnknownMeter};

use super::super::entitlements::DecisionView;
use super::super::problem::{Problem, sentence};

impl From<CommitError> for Problem {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::QueueFull | CommitError::Contended => {
                let detail = format!("{} Nothing was counted; send it again.", sentence(&error.to_string()));
                Self::unavailable("busy", detail)
            }
            CommitError::Away(why) => StoreError::Unavailable(why).into(),
            CommitError::InDoubt(why) => StoreError::InDoubt(why).into(),
            CommitError::Fault(why) => Self::internal(&why),
        }
    }
}

impl From<UnknownMeter> for Problem {
    fn from(error: UnknownMeter) -> Self {
        Self::not_found(sentence(&error.to_string()))
    }
}

impl From<ConsumeError> for Problem {
    fn from(error: ConsumeError) -> Self {
        match error {
            ConsumeError::Unknown(unknown) => unknown.into(),
            ConsumeError::NotMetered(_) => Self::invalid_field("amount", "is 1 for a feature that is had or not"),
            ConsumeError::KeyReused => Self::unprocessable("idempotency_key_reused", &error),
            ConsumeError::Commit(error) => error.into(),
        }
    }
}

impl From<ReserveCallError> for Problem {
    fn from(error: ReserveCallError) -> Self {
        match error {
            ReserveCallError::Unknown(unknown) => unknown.into(),
            ReserveCallError::Commit(error) => error.into(),
        }
    }
}

impl From<ReservationError> for Problem {
    fn from(error: ReservationError) -> Self {
        match error {
            ReservationError::Unknown => Self::not_found("There is no such reservation."),
            ReservationError::Ended(status, settled) => {
                let code = match status {
                    HoldStatus::Settled => "reservation_settled",
                    HoldStatus::Released => "reservation_released",
                    HoldStatus::Expired | HoldStatus::Pending => "reservation_expired",
                };
                let settled_as = settled.map_or_else(String::new, |amount| format!(", with {amount}"));
                let problem =
                    Self::conflict(code, &format!("The reservation is {} already{settled_as}.", status.as_str()));
                problem.with_field("reservation_status", status.as_str().into()).with_field("amount", settled.into())
            }
            ReservationError::CounterFull => Self::invalid_field("amount", sentence(&error.to_string())),
            ReservationError::Commit(error) => error.into(),
        }
    }
}

/// A refusal as a problem, with every figure that it depends on.
pub fn refusal(decision: Decision) -> Problem {
    let (limit, current, resets_at) = (decision.limit.unwrap_or_default(), decision.current, decision.resets_at);
    let until = resets_at.map_or_else(String::new, |at| format!(" It starts again at {}.", at.to_rfc3339()));
    let wait = resets_at.map(|at| (at - decision.as_of).num_seconds().max(1).cast_unsigned());
    let (status, code, detail) = match decision.reason {
        Reason::Ok | Reason::LimitReached => {
            (StatusCode::TOO_MANY_REQUESTS, "limit_reached", format!("{current} of {limit} are used or held.{until}"))
        }
        Reason::InsufficientTokens => {
            let detail = format!("{current} of {limit} are used, and the tokens do not pay for the rest.{until}");
            (StatusCode::PAYMENT_REQUIRED, "insufficient_tokens", detail)
        }
        Reason::FeatureNotInPlan => {
            let detail =
                format!("The plan `{}` does not have the feature `{}`.", decision.plan_id, decision.feature_id);
            (StatusCode::FORBIDDEN, "feature_not_in_plan", detail)
        }
        Reason::FeatureDisabled => (
            StatusCode::FORBIDDEN,
            "feature_disabled",
            format!("The feature `{}` is switched off.", decision.feature_id),
        ),
        Reason::SubscriptionInactive => {
            let detail = format!("The subscription that has the feature `{}` has lapsed.", decision.feature_id);
            (StatusCode::FORBIDDEN, "subscription_inactive", detail)
        }
    };
    let mut problem = Problem::new(status, code, detail);
    if let (StatusCode::TOO_MANY_REQUESTS, Some(seconds)) = (status, wait) {
        problem = problem.with_retry_after(seconds);
    }
    problem.fields = numbers(decision);
    problem
}

fn numbers(decision: Decision) -> Map<String, Value> {
    match serde_json::to_value(DecisionView::from(decision)) {
        Ok(Value::Object(fields)) => fields,
        // A decision is an object of numbers and words, which JSON can always express.
        _ => Map::new(),
    }
}
