//! Refusals: turns those of the framework into problems.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use actix_web::{Error, HttpResponse};

use crate::http::problem::Problem;

/// The problem of a refused request; `None` for responses that stay as they are, such as those of handlers that wrote a
/// body of their own (readiness answers 503 in its own form).
pub fn problem_of<B>(response: &HttpResponse<B>) -> Option<Problem> {
    let status = response.status();
    if status.as_u16() < 400 {
        return None;
    }
    let allow = response.headers().get(ALLOW);
    if let Some(error) = response.error() {
        return Some(of_error(error, allow));
    }
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    (kind.is_empty() || kind.starts_with("text/plain")).then(|| of_status(status, allow))
}

pub fn of_error(error: &Error, allow: Option<&HeaderValue>) -> Problem {
    if let Some(problem) = error.as_error::<Problem>() {
        return problem.clone();
    }
    let status = error.as_response_error().status_code();
    if status.is_server_error() {
        // The framework's own failures are our faults; their text goes to the log only.
        return Problem::internal(error);
    }
    of_status(status, allow)
}

/// The framework's refusals, with our codes and texts.
fn of_status(status: StatusCode, allow: Option<&HeaderValue>) -> Problem {
    let (code, detail) = match status {
        StatusCode::NOT_FOUND => ("not_found", "There is nothing at this path.".to_owned()),
        StatusCode::METHOD_NOT_ALLOWED => {
            let methods = allow.and_then(|methods| methods.to_str().ok()).unwrap_or("other methods");
            ("method_not_allowed", format!("This path takes {methods}."))
        }
        StatusCode::REQUEST_TIMEOUT => ("too_slow", "The request did not arrive in time.".to_owned()),
        StatusCode::PAYLOAD_TOO_LARGE => ("too_large", "The body is larger than this route takes.".to_owned()),
        StatusCode::URI_TOO_LONG => {
            ("uri_too_long", "The path and query are longer than this service takes.".to_owned())
        }
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            ("unsupported_media_type", "This route takes another media type.".to_owned())
        }
        StatusCode::UNAUTHORIZED => return Problem::unauthorized(),
        _ if status.is_client_error() => ("malformed", "The request is not understood as it is.".to_owned()),
        _ => ("unavailable", "The service cannot answer this just now.".to_owned()),
    };
    Problem::new(status, code, detail)
}

/// Past the deadline: the client's fault while its body is awaited, otherwise ours.
pub fn too_late(deadline: Duration, body_awaited: bool) -> Problem {
    let seconds = deadline.as_secs();
    if body_awaited {
        let detail = format!("The body did not arrive within {seconds} s.");
        return Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", detail);
    }
    let detail =
        format!("There was no answer within {seconds} s. What was asked for may still be done: look, then ask again.");
    Problem::unavailable("deadline_passed", detail)
}
