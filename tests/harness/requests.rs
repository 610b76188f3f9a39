//! Requests to the service under test.

use reqwest::RequestBuilder;
use reqwest::header::CONTENT_TYPE;
use serde::Serialize;
use serde_json::Value;

use crate::answers::Answer;

/// A value with a token for `Authorization: Bearer ..`: a user's access token, an API key, any text.
pub trait Bearer {
    fn bearer_token(&self) -> &str;
}

impl Bearer for str {
    fn bearer_token(&self) -> &str {
        self
    }
}

impl Bearer for String {
    fn bearer_token(&self) -> &str {
        self
    }
}

/// A request before it is sent.
#[must_use = "a request does nothing until it is sent"]
pub struct Request {
    /// Method and path, for messages.
    name: String,
    builder: RequestBuilder,
}

impl Request {
    pub(crate) fn new(name: String, builder: RequestBuilder) -> Self {
        Self { name, builder }
    }

    pub fn bearer(self, who: &(impl Bearer + ?Sized)) -> Self {
        let builder = self.builder.bearer_auth(who.bearer_token());
        Self { builder, ..self }
    }

    pub fn header(self, name: &str, value: &str) -> Self {
        Self { builder: self.builder.header(name, value), ..self }
    }

    pub fn idempotency_key(self, key: &str) -> Self {
        self.header("Idempotency-Key", key)
    }

    pub fn query(self, pairs: &[(&str, &str)]) -> Self {
        Self { builder: self.builder.query(pairs), ..self }
    }

    pub fn json(self, body: impl Serialize) -> Self {
        Self { builder: self.builder.json(&body), ..self }
    }

    /// A body sent unchanged, for bodies that are not JSON or only claim to be.
    pub fn raw(self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { builder: self.builder.header(CONTENT_TYPE, content_type).body(body.into()), ..self }
    }

    /// Sends the request and reads the whole response.
    pub async fn send(self) -> Answer {
        let Self { name, builder } = self;
        let response = builder.send().await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { request: name, status, headers, body, text }
    }
}
