//! Problems: every response that is not a success, as `application/problem+json` (RFC 9457).
//!
//! A problem has a stable `code`, listed in docs/API.md, and `type` is the same code as a URN. What a person needs is
//! in `detail`; what a program needs is in further fields. It never has internal text: that is logged once, where a
//! problem of ours is made, and the client gets the request id to quote. `middleware` adds the request's path and id to
//! each problem, and gives the framework's own errors (404, 405) the same form.

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use domain::identity::PermissionMissing;
use ports::store::StoreError;
use serde::Serialize;
use serde_json::{Map, Value};
use services::idempotency::KeyConflict;
use tracing::error;
use utoipa::ToSchema;

/// The media type of every problem (RFC 9457).
pub const CONTENT_TYPE: &str = "application/problem+json";

/// How long a client should wait if the store or a provider does not answer, in seconds.
const AWAY_RETRY_SECONDS: u64 = 2;

/// The wire form, for the `OpenAPI` document.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemView {
    /// `urn:product-base:problem:<code>`
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem, for people.
    pub title: String,
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// The stable code of the problem, such as `profile_missing`.
    pub code: String,
    /// What happened here, which value, and what to do.
    pub detail: String,
    /// The path of the request.
    pub instance: String,
    /// Quote it to support; it is in the log.
    pub request_id: String,
    /// Which fields of the request are wrong, and how.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub errors: Vec<FieldProblem>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldProblem {
    /// The path of the field: `features[0].limit_value`.
    pub field: String,
    /// What is wrong with it; never the value itself.
    pub detail: String,
}

#[derive(Clone, Debug)]
pub struct Problem {
    pub status: StatusCode,
    pub code: &'static str,
    pub detail: String,
    pub fields: Map<String, Value>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), fields: Map::new(), headers: Vec::new() }
    }

    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", detail)
    }

    /// No credentials, or none that are valid; the response does not say which.
    pub fn unauthorized() -> Self {
        let detail = "Send a valid access token or API key in the header `Authorization: Bearer ...`.";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
            .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    pub fn forbidden(why: &impl ToString) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", sentence(&why.to_string()))
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub fn conflict(code: &'static str, why: &impl ToString) -> Self {
        Self::new(StatusCode::CONFLICT, code, sentence(&why.to_string()))
    }

    pub fn unprocessable(code: &'static str, why: &impl ToString) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, sentence(&why.to_string()))
    }

    /// One field of the request is wrong.
    pub fn invalid_field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::invalid(vec![FieldProblem { field: field.into(), detail: detail.into() }])
    }

    /// Fields of the request are wrong.
    pub fn invalid(errors: Vec<FieldProblem>) -> Self {
        let named: Vec<_> = errors.iter().map(|error| format!("`{}` {}", error.field, error.detail)).collect();
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", format!("{}.", named.join("; ")));
        problem.fields.insert("errors".to_owned(), serde_json::to_value(errors).unwrap_or_default());
        problem
    }

    pub fn too_many(code: &'static str, detail: impl Into<String>, wait_seconds: u64) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, code, detail).with_retry_after(wait_seconds)
    }

    /// Something that the service depends on does not answer. The caller can send the same again.
    pub fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).with_retry_after(AWAY_RETRY_SECONDS)
    }

    /// A bug of ours. `why` goes to the log, not to the client.
    pub fn internal(why: &dyn std::fmt::Display) -> Self {
        error!(%why, "a request failed by a fault of ours");
        let detail =
            "Something went wrong here. It is logged under the request id; nothing that was acknowledged is lost.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    #[must_use]
    pub fn with_retry_after(self, seconds: u64) -> Self {
        self.with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    #[must_use]
    pub fn with_field(mut self, name: &str, value: Value) -> Self {
        self.fields.insert(name.to_owned(), value);
        self
    }

    /// The whole body, for the request `instance` under `request_id`.
    pub fn body(&self, instance: &str, request_id: &str) -> Value {
        let mut body = Map::new();
        body.insert("type".to_owned(), format!("urn:product-base:problem:{}", self.code).into());
        body.insert("title".to_owned(), self.status.canonical_reason().unwrap_or("Problem").into());
        body.insert("status".to_owned(), self.status.as_u16().into());
        body.insert("code".to_owned(), self.code.into());
        body.insert("detail".to_owned(), self.detail.clone().into());
        body.insert("instance".to_owned(), instance.into());
        body.insert("request_id".to_owned(), request_id.into());
        body.extend(self.fields.clone());
        Value::Object(body)
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}: {}", self.status.as_u16(), self.code, self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    // `middleware` writes the body again, with the request's path and id.
    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        for (name, value) in &self.headers {
            response.append_header((name.clone(), value.clone()));
        }
        response.content_type(CONTENT_TYPE).body(self.body("", "").to_string())
    }
}

/// The message of an error as a sentence: errors of the inner crates begin in lower case, without a full stop.
pub fn sentence(message: &str) -> String {
    let mut characters = message.chars();
    let first = characters.next().map(|character| character.to_uppercase().collect::<String>()).unwrap_or_default();
    format!("{first}{}.", characters.as_str())
}

impl From<PermissionMissing> for Problem {
    fn from(why: PermissionMissing) -> Self {
        Self::forbidden(&why)
    }
}

impl From<KeyConflict> for Problem {
    fn from(why: KeyConflict) -> Self {
        match why {
            KeyConflict::OtherBody => Self::unprocessable("idempotency_key_reused", &why),
            KeyConflict::BeyondRights => {
                Self::new(StatusCode::FORBIDDEN, "idempotency_key_forbidden", sentence(&why.to_string()))
            }
            KeyConflict::InFlight => Self::conflict("idempotency_key_in_flight", &why).with_retry_after(1),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict => Self::unavailable(
                "busy",
                "Other requests were changing the same rows, three times over. Nothing was changed; send it again.",
            ),
            StoreError::Busy => Self::unavailable(
                "busy",
                "Another transaction keeps a row locked that this request changes. Nothing was changed; send it again.",
            ),
            StoreError::Unavailable(why) => {
                error!(%why, "the database is away");
                Self::unavailable("database_away", "The database does not answer. Nothing was changed; send it again.")
            }
            StoreError::InDoubt(why) => {
                error!(%why, "the database went away during a commit");
                let detail = "The database went away while it was writing: the change may have been made, or not. Look \
                    before you send it again, or send it again with the same idempotency key.";
                Self::unavailable("outcome_unknown", detail)
            }
            bug @ (StoreError::Constraint { .. } | StoreError::Inconsistent { .. } | StoreError::Unexpected(_)) => {
                Self::internal(&bug)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_the_field_and_never_the_value() {
        let problem = Problem::invalid_field("password", "has 12 to 128 characters");
        let body = problem.body("/api/auth/signup", "r1");
        assert_eq!(body["status"], 422);
        assert_eq!(body["errors"][0]["field"], "password");
        assert_eq!(body["type"], "urn:product-base:problem:invalid");
        assert_eq!(body["detail"], "`password` has 12 to 128 characters.");
    }

    #[test]
    fn inner_text_stays_inside() {
        let problem = Problem::from(StoreError::Unexpected("relation \"secrets\" does not exist".into()));
        assert_eq!(problem.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!problem.body("/", "").to_string().contains("secrets"));
        let away = Problem::from(StoreError::Unavailable("postgres://user:password@host".into()));
        assert!(!away.body("/", "").to_string().contains("postgres://"));
        assert_eq!(away.headers[0].0, RETRY_AFTER);
    }
}
