//! Headers of a provider's reply that callers receive: rate limits, the time to retry and the provider's request id.
//!
//! Promises: an allow-list. No header that names our account is passed on, and the number and length of the headers are
//! bounded.

use reqwest::header::HeaderMap;

/// Allowed prefixes of names.
const BEGINS: [&str; 4] = ["x-ratelimit-", "anthropic-", "openai-", "retry-after"];
const NAMES: [&str; 5] = ["x-should-retry", "request-id", "x-request-id", "x-goog-request-id", "cf-ray"];
/// Headers that name the paying account.
const OF_THE_ACCOUNT: [&str; 6] = [
    "anthropic-organization-id",
    "anthropic-workspace-id",
    "openai-organization",
    "openai-project",
    "openai-organization-id",
    "openai-project-id",
];

const COUNT_MAX: usize = 64;
const LENGTH_MAX: usize = 1_024;

/// Names in lower case, in their original order.
pub(super) fn for_callers(headers: &HeaderMap) -> Vec<(String, String)> {
    let is_shown = |name: &str| {
        (BEGINS.iter().any(|begin| name.starts_with(begin)) || NAMES.contains(&name)) && !OF_THE_ACCOUNT.contains(&name)
    };
    let passed = headers.iter().filter(|(name, _)| is_shown(name.as_str())).filter_map(|(name, value)| {
        let value = value.to_str().ok().filter(|value| value.len() <= LENGTH_MAX)?;
        Some((name.as_str().to_owned(), value.to_owned()))
    });
    passed.take(COUNT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn rates_and_names_pass_and_the_account_does_not() {
        let long = "x".repeat(LENGTH_MAX + 1);
        let pairs = [
            ("x-ratelimit-remaining-tokens", "7"),
            ("anthropic-ratelimit-requests-reset", "2026-12-01T00:00:00Z"),
            ("retry-after-ms", "20"),
            ("request-id", "req_1"),
            ("openai-processing-ms", "12"),
            ("openai-organization", "acme"),
            ("anthropic-organization-id", "acme"),
            ("set-cookie", "a=b"),
            ("server", "x"),
            ("x-ratelimit-long", long.as_str()),
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let mut names: Vec<String> = for_callers(&headers).into_iter().map(|(name, _)| name).collect();
        names.sort();
        let expected = [
            "anthropic-ratelimit-requests-reset",
            "openai-processing-ms",
            "request-id",
            "retry-after-ms",
            "x-ratelimit-remaining-tokens",
        ];
        assert_eq!(names, expected);
    }
}
