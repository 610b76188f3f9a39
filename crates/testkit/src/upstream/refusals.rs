//! Refusals of the three providers: status, headers and body.

use super::ask::UpstreamDialect;
use super::fields::quoted;

#[derive(Clone, Debug)]
pub struct Refusal {
    pub why: Why,
    /// OpenAI and Anthropic send it as a header, Gemini as `RetryInfo` in the body.
    pub retry_after: Option<RetryAfter>,
    /// Gemini sometimes wraps its error in an array of one.
    pub in_array: bool,
}

#[derive(Clone, Debug)]
pub enum Why {
    /// 400, with this message.
    Invalid(String),
    /// 401; Gemini sends 403.
    Unauthenticated,
    /// 402: the account's bill is not paid.
    Unpaid,
    /// 403
    Forbidden,
    /// 404, with this message.
    NotFound(String),
    /// 413
    TooLarge,
    /// 429: too many requests or tokens a minute.
    TooFast,
    /// 429 that lasts to the end of the month and must not be retried.
    SpendLimit,
    /// 500
    Broken,
    /// 503
    Unavailable,
    /// 504
    TimedOut,
    /// 529, which only Anthropic sends. For the others it is wrapped in their own body here.
    Overloaded,
    /// From a proxy before the provider: this status, with an HTML page.
    Proxy(u16),
}

#[derive(Clone, Debug)]
pub enum RetryAfter {
    Seconds(u64),
    /// OpenAI's `retry-after-ms`; the others round it up to seconds.
    Milliseconds(u64),
    /// An HTTP date, as in a header. Gemini has no such form and then sends nothing.
    Date(String),
}

/// A refusal in a dialect, ready to send.
pub struct Refused {
    pub status: u16,
    pub content_type: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Refusal {
    pub fn of(why: Why) -> Self {
        Self { why, retry_after: None, in_array: false }
    }

    /// 429, with or without the number of seconds to wait.
    pub fn too_fast(seconds: Option<u64>) -> Self {
        Self { retry_after: seconds.map(RetryAfter::Seconds), ..Self::of(Why::TooFast) }
    }

    #[must_use]
    pub fn in_array(mut self) -> Self {
        self.in_array = true;
        self
    }

    pub fn rendered(&self, dialect: UpstreamDialect) -> Refused {
        if let Why::Proxy(status) = self.why {
            let body = format!("<html><head><title>{status}</title></head><body>stub proxy</body></html>\n");
            return Refused { status, content_type: "text/html", headers: self.headers(dialect), body };
        }
        let error = self.error(dialect);
        let body = if self.in_array && dialect == UpstreamDialect::Gemini { format!("[{error}]") } else { error };
        let content_type =
            if dialect == UpstreamDialect::Gemini { "application/json; charset=UTF-8" } else { "application/json" };
        Refused { status: self.status(dialect), content_type, headers: self.headers(dialect), body }
    }

    fn headers(&self, dialect: UpstreamDialect) -> Vec<(&'static str, String)> {
        match &self.retry_after {
            _ if dialect == UpstreamDialect::Gemini => Vec::new(),
            None => Vec::new(),
            Some(RetryAfter::Seconds(seconds)) => vec![("retry-after", seconds.to_string())],
            Some(RetryAfter::Date(date)) => vec![("retry-after", date.clone())],
            Some(RetryAfter::Milliseconds(milliseconds)) => {
                let seconds = ("retry-after", milliseconds.div_ceil(1000).to_string());
                if dialect == UpstreamDialect::OpenAi {
                    vec![("retry-after-ms", milliseconds.to_string()), seconds]
                } else {
                    vec![seconds]
                }
            }
        }
    }

    fn status(&self, dialect: UpstreamDialect) -> u16 {
        match self.why {
            Why::Invalid(_) => 400,
            Why::Unauthenticated if dialect == UpstreamDialect::Gemini => 403,
            Why::Unauthenticated => 401,
            Why::Unpaid => 402,
            Why::Forbidden => 403,
            Why::NotFound(_) => 404,
            Why::TooLarge => 413,
            Why::TooFast | Why::SpendLimit => 429,
            Why::Broken => 500,
            Why::Unavailable => 503,
            Why::TimedOut => 504,
            Why::Overloaded => 529,
            Why::Proxy(status) => status,
        }
    }

    fn message(&self) -> &str {
        match &self.why {
            Why::Invalid(message) | Why::NotFound(message) => message,
            Why::Unauthenticated => "The stub knows no such API key.",
            Why::Unpaid => "Your credit balance is too low.",
            Why::Forbidden => "This key may not use this model.",
            Why::TooLarge => "Request exceeds the maximum size.",
            Why::TooFast => "Rate limit reached for requests per minute.",
            Why::SpendLimit => "You exceeded your spend limit for this month.",
            Why::Broken => "The stub had an error while processing your request.",
            Why::Unavailable => "The model is overloaded. Please try again later.",
            Why::TimedOut => "The deadline expired before the operation could complete.",
            Why::Overloaded => "Overloaded",
            Why::Proxy(_) => "The proxy before the stub had an error.",
        }
    }

    /// The JSON object of the refusal, as used in a body or in an error event.
    pub fn error(&self, dialect: UpstreamDialect) -> String {
        let message = quoted(self.message());
        match dialect {
            UpstreamDialect::OpenAi => {
                let (kind, code) = self.openai();
                let code = code.map_or_else(|| "null".to_owned(), quoted);
                format!(r#"{{"error":{{"message":{message},"type":"{kind}","param":null,"code":{code}}}}}"#)
            }
            UpstreamDialect::Anthropic => {
                let kind = self.anthropic();
                let details = if matches!(self.why, Why::SpendLimit) {
                    r#","details":{"error_code":"enforced_spend_limit_reached"}"#
                } else {
                    ""
                };
                format!(
                    r#"{{"type":"error","error":{{"type":"{kind}","message":{message}{details}}},"request_id":"req_stub"}}"#
                )
            }
            UpstreamDialect::Gemini => {
                let (code, status) = (self.status(dialect), self.gemini());
                let details = self.gemini_details();
                format!(r#"{{"error":{{"code":{code},"message":{message},"status":"{status}"{details}}}}}"#)
            }
        }
    }

    fn openai(&self) -> (&'static str, Option<&'static str>) {
        match self.why {
            Why::Invalid(_) | Why::TooLarge => ("invalid_request_error", None),
            Why::Unauthenticated => ("invalid_request_error", Some("invalid_api_key")),
            Why::Unpaid => ("insufficient_quota", Some("credit_balance_exhausted")),
            Why::Forbidden => ("invalid_request_error", Some("model_not_allowed")),
            Why::NotFound(_) => ("invalid_request_error", Some("model_not_found")),
            Why::TooFast => ("requests", Some("rate_limit_exceeded")),
            Why::SpendLimit => ("insufficient_quota", Some("organization_spend_limit_exceeded")),
            Why::Broken | Why::Unavailable | Why::TimedOut | Why::Overloaded | Why::Proxy(_) => ("server_error", None),
        }
    }

    fn anthropic(&self) -> &'static str {
        match self.why {
            Why::Invalid(_) => "invalid_request_error",
            Why::Unauthenticated => "authentication_error",
            Why::Unpaid => "billing_error",
            Why::Forbidden => "permission_error",
            Why::NotFound(_) => "not_found_error",
            Why::TooLarge => "request_too_large",
            Why::TooFast | Why::SpendLimit => "rate_limit_error",
            Why::Broken | Why::Unavailable | Why::Proxy(_) => "api_error",
            Why::TimedOut => "timeout_error",
            Why::Overloaded => "overloaded_error",
        }
    }

    fn gemini(&self) -> &'static str {
        match self.why {
            Why::Invalid(_) | Why::TooLarge => "INVALID_ARGUMENT",
            Why::Unpaid => "FAILED_PRECONDITION",
            Why::Unauthenticated | Why::Forbidden => "PERMISSION_DENIED",
            Why::NotFound(_) => "NOT_FOUND",
            Why::TooFast | Why::SpendLimit => "RESOURCE_EXHAUSTED",
            Why::Broken => "INTERNAL",
            Why::Unavailable | Why::Overloaded | Why::Proxy(_) => "UNAVAILABLE",
            Why::TimedOut => "DEADLINE_EXCEEDED",
        }
    }

    fn gemini_details(&self) -> String {
        let mut details = Vec::new();
        if matches!(self.why, Why::SpendLimit) {
            details.push(
                r#"{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"SpendPerMonth"}]}"#
                    .to_owned(),
            );
        }
        let delay = match self.retry_after {
            Some(RetryAfter::Seconds(seconds)) => Some(seconds.to_string()),
            Some(RetryAfter::Milliseconds(milliseconds)) => Some(milliseconds.div_ceil(1000).to_string()),
            Some(RetryAfter::Date(_)) | None => None,
        };
        details.extend(
            delay.map(|delay| {
                format!(r#"{{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"{delay}s"}}"#)
            }),
        );
        if details.is_empty() { String::new() } else { format!(r#","details":[{}]"#, details.join(",")) }
    }
}
