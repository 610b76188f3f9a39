//! The response of the service, and the expectations of a test. A failed expectation prints the whole response.

use std::fmt;

use reqwest::header::HeaderMap;
use serde_json::Value;

/// A response, read to its end.
pub struct Answer {
    /// Method and path, for messages.
    pub request: String,
    pub status: u16,
    pub headers: HeaderMap,
    /// The body as JSON; null if the body is not JSON.
    pub body: Value,
    /// The body as received.
    pub text: String,
}

#[expect(clippy::return_self_not_must_use, reason = "an expectation may be the last word of a test")]
impl Answer {
    #[track_caller]
    pub fn expect_status(self, status: u16) -> Self {
        assert!(self.status == status, "expected {status}, got {self}");
        self
    }

    /// Expects a complete problem document (RFC 9457) with this code, such as `not_found`.
    #[track_caller]
    pub fn expect_problem(self, status: u16, code: &str) -> Self {
        assert!(self.status == status, "expected {status} {code}, got {self}");
        assert!(self.header("content-type") == Some("application/problem+json"), "expected a problem, got {self}");
        assert!(self.body["code"] == code, "expected the problem {code}, got {self}");
        assert!(self.body["type"] == format!("urn:product-base:problem:{code}"), "expected its type, got {self}");
        assert!(self.body["status"] == status, "expected its status in the body, got {self}");
        for member in ["title", "detail", "instance", "request_id"] {
            let is_told = self.body[member].as_str().is_some_and(|text| !text.is_empty());
            assert!(is_told, "expected the member `{member}`, got {self}");
        }
        self
    }

    /// The value at a JSON pointer (`/data/0/id`), which must exist.
    #[track_caller]
    pub fn at(&self, pointer: &str) -> &Value {
        self.body.pointer(pointer).unwrap_or_else(|| panic!("expected something at {pointer}, got {self}"))
    }

    /// The text at a JSON pointer, which must exist.
    #[track_caller]
    pub fn text_at(&self, pointer: &str) -> &str {
        self.at(pointer).as_str().unwrap_or_else(|| panic!("expected text at {pointer}, got {self}"))
    }

    /// The first header of this name, if its value is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{} to {}", self.status, self.request)?;
        for (name, value) in &self.headers {
            writeln!(formatter, "  {name}: {}", String::from_utf8_lossy(value.as_bytes()))?;
        }
        if self.body.is_null() { formatter.write_str(&self.text) } else { write!(formatter, "{:#}", self.body) }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}
