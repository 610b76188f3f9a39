//! Requests in each dialect, and the errors that a test expects.

use harness::{Answer, Request, TestApp, TestUser};
use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    OpenAi,
    Anthropic,
    Gemini,
}

pub const ALL: [Dialect; 3] = [Dialect::OpenAi, Dialect::Anthropic, Dialect::Gemini];

impl Dialect {
    /// The path for a conversation with this model.
    pub fn path(self, model: &str) -> String {
        match self {
            Self::OpenAi => "/v1/chat/completions".to_owned(),
            Self::Anthropic => "/v1/messages".to_owned(),
            Self::Gemini => format!("/v1beta/models/{model}:generateContent"),
        }
    }

    /// A body with this text.
    pub fn body(self, model: &str, text: &str) -> Value {
        match self {
            Self::OpenAi => json!({ "model": model, "messages": [{ "role": "user", "content": text }] }),
            Self::Anthropic => {
                json!({ "model": model, "max_tokens": 200, "messages": [{ "role": "user", "content": text }] })
            }
            Self::Gemini => json!({ "contents": [{ "role": "user", "parts": [{ "text": text }] }] }),
        }
    }

    /// A conversation as the provider's SDK sends it, with the credential.
    pub fn ask(self, app: &TestApp, key: &str, model: &str) -> Request {
        let request = app.post(&self.path(model)).json(self.body(model, "Say something."));
        self.signed(request, key)
    }

    pub fn signed(self, request: Request, key: &str) -> Request {
        match self {
            Self::OpenAi => request.bearer(key),
            Self::Anthropic => request.header("x-api-key", key).header("anthropic-version", "2023-06-01"),
            Self::Gemini => request.header("x-goog-api-key", key),
        }
    }

    /// A model of the dialect's own provider.
    pub const fn own_model(self) -> &'static str {
        match self {
            Self::OpenAi => "gpt-6-sol",
            Self::Anthropic => "claude-sonnet-5",
            Self::Gemini => "gemini-2.5-flash",
        }
    }

    /// The dialect's error type for this status.
    fn word(self, status: u16) -> &'static str {
        match (self, status) {
            (Self::OpenAi | Self::Anthropic, 403) => "permission_error",
            (Self::OpenAi, 402) => "insufficient_quota",
            (Self::OpenAi, 500..) => "server_error",
            (Self::Anthropic, 413) => "request_too_large",
            (Self::Anthropic, 529) => "overloaded_error",
            (Self::OpenAi, _) | (Self::Anthropic, 400 | 405 | 415 | 422 | 431) => "invalid_request_error",
            (Self::Anthropic, 401) => "authentication_error",
            (Self::Anthropic, 402) => "billing_error",
            (Self::Anthropic, 404) => "not_found_error",
            (Self::Anthropic, 429) => "rate_limit_error",
            (Self::Anthropic, _) => "api_error",
            (Self::Gemini, 400 | 413 | 415 | 422 | 431) => "INVALID_ARGUMENT",
            (Self::Gemini, 401) => "UNAUTHENTICATED",
            (Self::Gemini, 402) => "FAILED_PRECONDITION",
            (Self::Gemini, 403) => "PERMISSION_DENIED",
            (Self::Gemini, 404) => "NOT_FOUND",
            (Self::Gemini, 405) => "UNIMPLEMENTED",
            (Self::Gemini, 429) => "RESOURCE_EXHAUSTED",
            (Self::Gemini, _) => "UNAVAILABLE",
        }
    }

    /// Expects a complete error in the dialect, with this status.
    #[track_caller]
    pub fn expect_error(self, answer: Answer, status: u16) -> Answer {
        let answer = answer.expect_status(status);
        assert_eq!(answer.header("content-type"), Some("application/json"), "{answer}");
        let id = answer.header("x-request-id").expect("every answer has an id").to_owned();
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer}");
        let word = match self {
            Self::OpenAi => {
                assert!(answer.at("/error").get("param").is_some() && answer.at("/error/code").is_string(), "{answer}");
                answer.at("/error/type")
            }
            Self::Anthropic => {
                assert_eq!((answer.at("/type"), answer.at("/request_id")), (&json!("error"), &json!(id)), "{answer}");
                assert_eq!(answer.header("request-id"), Some(id.as_str()), "{answer}");
                answer.at("/error/type")
            }
            Self::Gemini => {
                assert_eq!(answer.at("/error/code"), &json!(status), "{answer}");
                answer.at("/error/status")
            }
        };
        if (self, status) != (Self::OpenAi, 429) {
            assert_eq!(word, self.word(status), "{answer}");
        }
        assert!(!answer.text_at("/error/message").is_empty());
        answer
    }

    /// Expects an error in a dialect's format, with a status that has no error type of its own.
    #[track_caller]
    pub fn expect_status_and_shape(answer: Answer, status: u16) -> Answer {
        let answer = answer.expect_status(status);
        assert_eq!(answer.header("content-type"), Some("application/json"), "{answer}");
        assert!(answer.at("/error").is_object() && !answer.text_at("/error/message").is_empty(), "{answer}");
        answer
    }

    /// Expects a 400 that names this field.
    #[track_caller]
    pub fn expect_field(self, answer: Answer, field: &str) -> Answer {
        let answer = self.expect_error(answer, 400);
        assert!(answer.text_at("/error/message").contains(&format!("`{field}`")), "{field} is not named: {answer}");
        answer
    }
}

/// An API key of this user with these permissions.
pub async fn key_of(app: &TestApp, user: &TestUser, permissions: &[&str]) -> String {
    let body = json!({ "name": "sdk", "permissions": permissions });
    let made = app.post("/api/keys").bearer(user).json(body).send().await.expect_status(201);
    made.text_at("/key").to_owned()
}

/// A service with a user, and an API key of that user that may chat.
pub async fn started() -> (TestApp, TestUser, String) {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let key = key_of(&app, &ada, &["ai:chat"]).await;
    (app, ada, key)
}
