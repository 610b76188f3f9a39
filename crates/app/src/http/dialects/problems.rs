//! Problems in a dialect: the error body that each provider's SDK understands.
//!
//! `middleware` calls this for every refusal below `/v1` and `/v1beta`, wherever it was made, so that every error there
//! is in a format that an SDK knows. The figures of a refusal are in the message, and in fields for programs.

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderValue, RETRY_AFTER};
use domain::ai::Dialect;
use serde_json::{Map, Value, json};

use crate::http::problem::Problem;

/// The field of a problem that names the fields of the request which are wrong.
const ERRORS: &str = "errors";

/// The code of an idempotency key that was used with another body.
const KEY_REUSED: &str = "idempotency_key_reused";

/// The code of a provider's refusal, which keeps its status.
const PROVIDER_REFUSED: &str = "provider_refused";

/// The code of a provider that accepts no more calls for now.
pub const OVERLOADED: &str = "provider_overloaded";

/// Anthropic's status for it, which other providers do not have.
pub const OVERLOADED_STATUS: u16 = 529;

/// The status of a problem in a dialect: a wrong field is a 400 there, where our own format has 422. An idempotency key
/// that was used with another body stays a 422, as at the providers.
pub fn status(dialect: Dialect, problem: &Problem) -> StatusCode {
    match problem.status {
        status if problem.code == KEY_REUSED || problem.code == PROVIDER_REFUSED => status,
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        status if dialect == Dialect::Anthropic && problem.code == OVERLOADED => {
            StatusCode::from_u16(OVERLOADED_STATUS).unwrap_or(status)
        }
        status => status,
    }
}

/// The body of a problem, for the request with this id. An error in the middle of a stream has it too.
pub fn body(dialect: Dialect, problem: &Problem, request_id: &str) -> Value {
    match dialect {
        Dialect::OpenAiChat => openai(problem, request_id),
        Dialect::Anthropic => anthropic(problem, request_id),
        Dialect::Gemini => gemini(problem, request_id),
    }
}

fn openai(problem: &Problem, request_id: &str) -> Value {
    let (kind, code) = match (status(Dialect::OpenAiChat, problem).as_u16(), problem.code) {
        (401, _) => ("invalid_request_error", "invalid_api_key"),
        (402, code) => ("insufficient_quota", code),
        (403, code) => ("permission_error", code),
        (404, "unknown_model") => ("invalid_request_error", "model_not_found"),
        (400, "input_too_long") => ("invalid_request_error", "context_length_exceeded"),
        (429, "limit_reached") => ("insufficient_quota", "plan_limit_exceeded"),
        (429, "key_cost_limit") => ("insufficient_quota", "key_cost_limit_exceeded"),
        (429, "key_token_limit") => ("tokens", "rate_limit_exceeded"),
        (429, _) => ("requests", "rate_limit_exceeded"),
        (500.., code) => ("server_error", code),
        (_, code) => ("invalid_request_error", code),
    };
    // The SDK shows the message alone, so it contains the id that support asks for.
    let message = if problem.status.is_server_error() {
        format!("{} (request id {request_id})", problem.detail)
    } else {
        problem.detail.clone()
    };
    let mut error = json!({ "message": message, "type": kind, "param": wrong_field(problem), "code": code });
    put_numbers(&mut error, problem);
    json!({ "error": error })
}

fn anthropic(problem: &Problem, request_id: &str) -> Value {
    let kind = match status(Dialect::Anthropic, problem).as_u16() {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        409 => "conflict_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        408 | 504 => "timeout_error",
        400..500 => "invalid_request_error",
        OVERLOADED_STATUS => "overloaded_error",
        _ => "api_error",
    };
    let mut error = json!({ "type": kind, "message": problem.detail });
    put_numbers(&mut error, problem);
    json!({ "type": "error", "error": error, "request_id": request_id })
}

fn gemini(problem: &Problem, request_id: &str) -> Value {
    let code = status(Dialect::Gemini, problem).as_u16();
    let word = match code {
        401 => "UNAUTHENTICATED",
        402 => "FAILED_PRECONDITION",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        405 => "UNIMPLEMENTED",
        408 | 504 => "DEADLINE_EXCEEDED",
        409 => "ABORTED",
        429 => "RESOURCE_EXHAUSTED",
        500 => "INTERNAL",
        501.. => "UNAVAILABLE",
        _ => "INVALID_ARGUMENT",
    };
    let metadata: Map<String, Value> = numbers(problem)
        .map(|(name, value)| (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned).into()))
        .collect();
    let reason = problem.code.to_uppercase();
    let mut details = vec![
        json!({ "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "product-base",
            "metadata": metadata }),
        json!({ "@type": "type.googleapis.com/google.rpc.RequestInfo", "requestId": request_id }),
    ];
    if let Some(wrong) = problem.fields.get(ERRORS).and_then(Value::as_array) {
        let violations: Vec<Value> =
            wrong.iter().map(|one| json!({ "field": one["field"], "description": one["detail"] })).collect();
        details.push(json!({ "@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations }));
    }
    if let Some(seconds) = header(problem, RETRY_AFTER.as_str()) {
        let delay = format!("{seconds}s");
        details.push(json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay }));
    }
    json!({ "error": { "code": code, "message": problem.detail, "status": word, "details": details } })
}

fn header<'a>(problem: &'a Problem, name: &str) -> Option<&'a str> {
    let found = problem.headers.iter().find(|(known, _)| known == name);
    found.and_then(|(_, value): &(_, HeaderValue)| value.to_str().ok())
}

fn numbers(problem: &Problem) -> impl Iterator<Item = (&String, &Value)> {
    problem.fields.iter().filter(|(name, _)| *name != ERRORS)
}

fn put_numbers(error: &mut Value, problem: &Problem) {
    let details: Map<String, Value> = numbers(problem).map(|(name, value)| (name.clone(), value.clone())).collect();
    if let (false, Value::Object(fields)) = (details.is_empty(), error) {
        fields.insert("details".to_owned(), details.into());
    }
}

fn wrong_field(problem: &Problem) -> Value {
    problem.fields.get(ERRORS).and_then(|errors| errors.pointer("/0/field")).cloned().unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::dialects::request_summary::refused;

    fn limit() -> Problem {
        let problem = Problem::too_many("limit_reached", "10 of 10 are used.", 37);
        problem.with_field("limit", 10.into()).with_field("resets_at", "2026-12-01T00:00:00Z".into())
    }

    #[test]
    fn a_limit_is_told_with_its_numbers_in_all_three() {
        let numbers = json!({ "limit": 10, "resets_at": "2026-12-01T00:00:00Z" });
        assert_eq!(
            body(Dialect::OpenAiChat, &limit(), "r1"),
            json!({ "error": { "message": "10 of 10 are used.", "type": "insufficient_quota", "param": null,
                "code": "plan_limit_exceeded", "details": numbers } })
        );
        assert_eq!(
            body(Dialect::Anthropic, &limit(), "r1"),
            json!({ "type": "error", "request_id": "r1",
                "error": { "type": "rate_limit_error", "message": "10 of 10 are used.", "details": numbers } })
        );
        let told = body(Dialect::Gemini, &limit(), "r1");
        assert_eq!((&told["error"]["code"], &told["error"]["status"]), (&json!(429), &json!("RESOURCE_EXHAUSTED")));
        assert_eq!(told["error"]["details"][0]["reason"], "LIMIT_REACHED");
        assert_eq!(told["error"]["details"][0]["metadata"]["limit"], "10", "metadata is a map of texts");
        assert_eq!(told["error"]["details"][1]["requestId"], "r1");
        assert_eq!(told["error"]["details"][2]["retryDelay"], "37s");
    }

    #[test]
    fn a_wrong_field_is_named_and_is_a_400() {
        let problem = refused("messages[1].role", "is no role");
        let told = body(Dialect::OpenAiChat, &problem, "r1");
        assert_eq!(told["error"]["param"], "messages[1].role");
        assert_eq!(told["error"]["type"], "invalid_request_error");
        assert_eq!(told["error"].get("details"), None);
        let told = body(Dialect::Gemini, &problem, "r1");
        assert_eq!(told["error"]["details"][2]["fieldViolations"][0]["field"], "messages[1].role");
        assert_eq!(body(Dialect::Anthropic, &problem, "r1")["error"]["type"], "invalid_request_error");
        for (dialect, of_the_house, code, expected) in [
            (Dialect::OpenAiChat, 422, "x", 400),
            (Dialect::OpenAiChat, 422, KEY_REUSED, 422),
            (Dialect::Gemini, 413, "x", 413),
            (Dialect::Anthropic, 415, "x", 415),
            (Dialect::Anthropic, 503, OVERLOADED, 529),
            (Dialect::OpenAiChat, 503, OVERLOADED, 503),
            (Dialect::OpenAiChat, 529, OVERLOADED, 529),
        ] {
            let problem = Problem::new(StatusCode::from_u16(of_the_house).unwrap(), code, "y");
            assert_eq!(status(dialect, &problem).as_u16(), expected, "{of_the_house} {code}");
        }
        let overloaded = Problem::new(StatusCode::SERVICE_UNAVAILABLE, OVERLOADED, "y");
        assert_eq!(body(Dialect::Anthropic, &overloaded, "r")["error"]["type"], "overloaded_error");
    }

    #[test]
    fn every_status_has_the_word_that_an_sdk_looks_for() {
        for (code, openai, anthropic, gemini) in [
            (400, "invalid_request_error", "invalid_request_error", "INVALID_ARGUMENT"),
            (401, "invalid_request_error", "authentication_error", "UNAUTHENTICATED"),
            (402, "insufficient_quota", "billing_error", "FAILED_PRECONDITION"),
            (403, "permission_error", "permission_error", "PERMISSION_DENIED"),
            (404, "invalid_request_error", "not_found_error", "NOT_FOUND"),
            (405, "invalid_request_error", "invalid_request_error", "UNIMPLEMENTED"),
            (429, "requests", "rate_limit_error", "RESOURCE_EXHAUSTED"),
            (500, "server_error", "api_error", "INTERNAL"),
            (502, "server_error", "api_error", "UNAVAILABLE"),
            (503, "server_error", "api_error", "UNAVAILABLE"),
            (504, "server_error", "timeout_error", "DEADLINE_EXCEEDED"),
        ] {
            let problem = Problem::new(StatusCode::from_u16(code).unwrap(), "x", "y");
            assert_eq!(body(Dialect::OpenAiChat, &problem, "r")["error"]["type"], openai, "{code}");
            assert_eq!(body(Dialect::Anthropic, &problem, "r")["error"]["type"], anthropic, "{code}");
            assert_eq!(body(Dialect::Gemini, &problem, "r")["error"]["status"], gemini, "{code}");
            let names_the_request = body(Dialect::OpenAiChat, &problem, "r7").to_string().contains("r7");
            assert_eq!(names_the_request, code >= 500, "{code}");
        }
    }
}
