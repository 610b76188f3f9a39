//! Refusals: why a call was not made or has no answer, as problems. `problems` renders them in a dialect.
//!
//! A retry that cannot help is marked: `x-should-retry: false`, which the SDKs of OpenAI and Anthropic obey. Callers
//! learn nothing of the operator's account at a provider but that something is wrong with it.

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use chrono::{DateTime, Utc};
use domain::ai::ProviderId;
use domain::entitlements::{Decision, Reason};
use ports::ai::{ProviderFault, ProviderRefusal, ProviderWait};
use serde::de::IgnoredAny;
use serde_json::Value;
use services::ai::answers::BreakOff;
use services::ai::errors::{CallError, KeyLimitReached};
use tracing::{error, warn};

use super::problems::{OVERLOADED, OVERLOADED_STATUS};
use super::provider_headers::beside;
use crate::http::problem::{Problem, sentence};
use crate::http::rate_limits::whole_seconds;
use crate::http::usage::refusals::refusal;

static SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Why there is no answer.
#[derive(Clone, Debug)]
pub enum UnansweredCall {
    Problem(Problem),
    /// A provider's refusal, for a caller who uses its dialect.
    InItsWords(ProviderRefusal),
}

impl From<Problem> for UnansweredCall {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// The refusal of a call. `native` are the providers in whose own format the call was passed on.
pub fn unanswered(error: CallError, native: &[ProviderId]) -> UnansweredCall {
    match error {
        CallError::Provider { provider, fault: ProviderFault::Refused(refusal) }
            if native.contains(&provider) && is_json(&refusal.body) =>
        {
            UnansweredCall::InItsWords(refusal)
        }
        CallError::Provider { provider, fault } if native.contains(&provider) => {
            let mut told = problem(CallError::Provider { provider, fault });
            // A caller who uses the provider's dialect knows its status.
            if told.code == OVERLOADED {
                told.status = StatusCode::from_u16(OVERLOADED_STATUS).unwrap_or(told.status);
            }
            UnansweredCall::Problem(told)
        }
        other => UnansweredCall::Problem(problem(other)),
    }
}

/// Whether a body may be passed on as JSON: an error page of a proxy before the provider may not.
fn is_json(body: &[u8]) -> bool {
    let is_structured = matches!(body.trim_ascii_start().first(), Some(b'{' | b'['));
    is_structured && serde_json::from_slice::<IgnoredAny>(body).is_ok()
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        problem(error)
    }
}

/// Why a call was not made or has no answer.
fn problem(error: CallError) -> Problem {
    let told = sentence(&error.to_string());
    match error {
        CallError::UnknownModel { near, .. } => {
            Problem::new(StatusCode::NOT_FOUND, "unknown_model", told).with_field("near", near.into())
        }
        CallError::WrongPurpose(_) => Problem::new(StatusCode::BAD_REQUEST, "wrong_purpose", told),
        CallError::Unpriced(_) => Problem::new(StatusCode::FORBIDDEN, "unpriced_model", told),
        CallError::Unbounded(_) => Problem::new(StatusCode::FORBIDDEN, "unbounded_input", told),
        CallError::InputTooLong { tokens, limit } => Problem::new(StatusCode::BAD_REQUEST, "input_too_long", told)
            .with_field("tokens", tokens.into())
            .with_field("limit", limit.into()),
        CallError::NotAllowed(decision) => not_allowed(*decision),
        CallError::Unaffordable { needed, available, decision } => {
            let fields = refusal(*decision).fields;
            let problem = Problem::new(StatusCode::PAYMENT_REQUIRED, "insufficient_tokens", told);
            Problem { fields, ..problem }.with_field("needed", needed.into()).with_field("available", available.into())
        }
        CallError::KeyLimit { reached, resets_at, as_of } => key_limit(&reached, resets_at, as_of, &told),
        CallError::CircuitOpen { retry_after, .. } => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "provider_circuit_open", told)
                .with_retry_after(whole_seconds(retry_after))
        }
        CallError::Provider { provider, fault } => {
            let told = of_fault(provider.as_str(), &fault);
            match &fault {
                ProviderFault::Refused(refusal)
                | ProviderFault::TooFast { refusal, .. }
                | ProviderFault::Failed { refusal, .. } => beside(told, &refusal.headers),
                // Callers learn nothing of the operator's account.
                _ => told,
            }
        }
        CallError::BrokenOff(why) => of_break_off("the provider", &why),
        CallError::UnknownSession => Problem::not_found(told),
        CallError::SessionEnded => Problem::conflict("session_ended", &error),
        CallError::Usage(error) => error.into(),
        CallError::Store(error) => error.into(),
    }
}

/// Why an answer that had begun broke off.
pub fn of_break_off(provider: &str, why: &BreakOff) -> Problem {
    match why {
        BreakOff::Provider(fault) => of_fault(provider, fault),
        BreakOff::KeyRevoked => {
            let detail = "The API key was revoked while the call was under way. What was used is charged.";
            Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
        }
        BreakOff::TokenEnded => {
            let detail = "The access token of the call has expired, or you logged out or were locked out while it was under way. \
                What was used is charged.";
            Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
        }
        BreakOff::Stopping => {
            let detail = "The service stops and ends the call here. What was used is charged.";
            Problem::unavailable("stopping", detail)
        }
    }
}

/// The answer arrived, but its cost could not be stored: a repeated call may be charged again.
pub fn not_in_the_books() -> Problem {
    let detail =
        "The answer came, and what it cost could not be written down; it will be. Asking again is charged again.";
    no_retry(Problem::unavailable("outcome_unknown", detail))
}

pub fn no_retry(problem: Problem) -> Problem {
    problem.with_header(SHOULD_RETRY.clone(), HeaderValue::from_static("false"))
}

/// Refused by the plan: its limit, its features, the balance.
fn not_allowed(decision: Decision) -> Problem {
    let (reason, feature, plan) = (decision.reason, decision.feature_id.clone(), decision.plan_id.clone());
    let problem = refusal(decision);
    match reason {
        Reason::LimitReached | Reason::Ok => {
            let detail = format!("The limit of `{feature}` in the plan `{plan}` is reached: {}", problem.detail);
            no_retry(Problem { detail, ..problem })
        }
        Reason::InsufficientTokens => {
            let detail = format!("The limit of `{feature}` in the plan `{plan}` is reached: {}", problem.detail);
            Problem { detail, ..problem }
        }
        Reason::FeatureDisabled | Reason::FeatureNotInPlan | Reason::SubscriptionInactive => problem,
    }
}

fn key_limit(reached: &KeyLimitReached, resets_at: DateTime<Utc>, as_of: DateTime<Utc>, told: &str) -> Problem {
    let wait = (resets_at - as_of).num_seconds().max(1).cast_unsigned();
    let at = resets_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let detail = format!("{told} It starts again at {at}.");
    let limited = |code, numbers: Vec<(&str, Value)>| {
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, code, detail.clone());
        let problem = numbers.into_iter().fold(problem, |problem, (name, value)| problem.with_field(name, value));
        problem.with_field("resets_at", at.clone().into())
    };
    match reached {
        KeyLimitReached::Requests { limit, used } => {
            let numbers = vec![("limit", (*limit).into()), ("current", (*used).into())];
            limited("key_request_limit", numbers).with_retry_after(wait)
        }
        KeyLimitReached::Tokens { limit, used, needed } => {
            let numbers = vec![("limit", (*limit).into()), ("current", (*used).into()), ("needed", (*needed).into())];
            let problem = limited("key_token_limit", numbers);
            // What does not fit into an empty minute never fits.
            if needed > limit { no_retry(problem) } else { problem.with_retry_after(wait) }
        }
        KeyLimitReached::Cost { limit, used, needed } => {
            let [limit, used, needed] = [limit, used, needed].map(|cost| Value::from(cost.usd().to_string()));
            let numbers = vec![("limit_usd", limit), ("used_usd", used), ("needed_usd", needed)];
            // Clients that do not know `x-should-retry` give up if the wait is long (Gemini CLI: beyond 300 s).
            no_retry(limited("key_cost_limit", numbers)).with_retry_after(wait)
        }
    }
}

fn of_fault(provider: &str, fault: &ProviderFault) -> Problem {
    let gateway = |code, detail: String| Problem::new(StatusCode::BAD_GATEWAY, code, detail);
    match fault {
        ProviderFault::NoKey { setting } => {
            let detail = format!("This service has no key for {provider}: its operator sets `{setting}`.");
            no_retry(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "provider_key_missing", detail))
        }
        ProviderFault::Refused(refusal) => refused_call(provider, refusal),
        ProviderFault::KeyRefused(refusal) => {
            error!(provider, status = refusal.status, "the provider does not take our key");
            let detail = format!("{provider} does not take the key of this service; its operator has to look at it.");
            no_retry(gateway("provider_key_refused", detail))
        }
        ProviderFault::SpendLimit(refusal) => {
            error!(provider, status = refusal.status, "our account at the provider may spend no more");
            let detail = format!("The account of this service at {provider} may spend no more for now.");
            no_retry(gateway("provider_spend_limit", detail))
        }
        ProviderFault::TooFast { retry_after, .. } => {
            let detail = format!("{provider} takes no more calls right now. Nothing was charged; send it again later.");
            let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "provider_too_fast", detail);
            problem.with_retry_after(retry_after.map_or(1, whole_seconds))
        }
        ProviderFault::Failed { refusal, retry_after } if refusal.status == OVERLOADED_STATUS => {
            warn!(provider, status = refusal.status, "the provider is overloaded");
            let detail = format!("{provider} is overloaded and takes no more calls right now.");
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, OVERLOADED, detail);
            retry_after.map_or(problem.clone(), |wait| problem.with_retry_after(whole_seconds(wait)))
        }
        ProviderFault::Failed { refusal, retry_after } => {
            warn!(provider, status = refusal.status, "the provider failed");
            let detail = format!("{provider} failed with {}.", refusal.status);
            let problem = gateway("provider_failed", detail).with_field("provider_status", refusal.status.into());
            retry_after.map_or(problem.clone(), |wait| problem.with_retry_after(whole_seconds(wait)))
        }
        ProviderFault::Unreachable(why) => {
            warn!(provider, %why, "the provider cannot be reached");
            gateway("provider_unreachable", format!("{provider} cannot be reached right now."))
        }
        ProviderFault::TimedOut(wait) => {
            warn!(provider, waited_for = wait.as_str(), "the provider took too long");
            let detail = format!("{provider} did not send {} in time.", wait.as_str());
            let problem = Problem::new(StatusCode::GATEWAY_TIMEOUT, "provider_timeout", detail);
            // The provider has the call and may bill it; its input is charged, and a repeat would be charged again.
            if *wait == ProviderWait::Connection { problem } else { no_retry(problem) }
        }
        ProviderFault::Broken(why) | ProviderFault::LostAnswer(why) | ProviderFault::NotUnderstood(why) => {
            warn!(provider, %why, "the answer of the provider broke");
            let problem = gateway("provider_bad_response", format!("The answer of {provider} broke off or is none."));
            // A lost answer is charged, and a repeat would be charged again.
            if matches!(fault, ProviderFault::LostAnswer(_)) { no_retry(problem) } else { problem }
        }
    }
}

/// A refusal that the provider blames on the caller, for a caller who uses another dialect, or if its body is not JSON.
fn refused_call(provider: &str, refusal: &ProviderRefusal) -> Problem {
    let status = StatusCode::from_u16(refusal.status).ok().filter(StatusCode::is_client_error);
    let detail = if is_json(&refusal.body) {
        format!("{provider} refused the call: {}", refusal.message)
    } else {
        format!("{provider} refused the call with {}.", refusal.status)
    };
    let problem = Problem::new(status.unwrap_or(StatusCode::BAD_REQUEST), "provider_refused", detail);
    let code = refusal.code.as_ref();
    code.map_or(problem.clone(), |code| problem.with_field("provider_code", code.as_str().into()))
}

#[cfg(test)]
mod tests;
