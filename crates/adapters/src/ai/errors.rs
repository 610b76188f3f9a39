//! Provider errors: what a provider's refusal means for a retry.
//!
//! A refusal is the caller's fault unless it concerns the account by which we call: a 401 always does, a 402 or a 403
//! does where its message says so. The caller receives the refusals that the caller caused, with the provider's status.

use std::time::Duration;

use chrono::{DateTime, Utc};
use ports::ai::{ProviderFault, ProviderRefusal};
use reqwest::header::HeaderMap;

use super::reply_headers;

/// The content of an error body, as far as it is understood.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ErrorDetails {
    pub message: Option<String>,
    pub code: Option<String>,
    pub means: ErrorMeaning,
    pub retry_after: Option<Duration>,
}

/// What the body says beyond its status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ErrorMeaning {
    #[default]
    WhatTheStatusSays,
    KeyRefused,
    SpendLimit,
}

/// Words in a 403 that concern the credentials, and so our account, not the request.
const OF_ACCESS: [&str; 29] = [
    "key",
    "keys",
    "apikey",
    "token",
    "bearer",
    "credential",
    "credentials",
    "authentication",
    "authenticate",
    "authenticated",
    "unauthenticated",
    "unauthorized",
    "authorization",
    "caller",
    "callers",
    "organization",
    "organisation",
    "workspace",
    "project",
    "account",
    "billing",
    "subscription",
    "country",
    "region",
    "scope",
    "scopes",
    "suspended",
    "ip",
    "consumer",
];

/// Words in a 402 that concern our bill.
const OF_BILLS: [&str; 15] = [
    "credit",
    "credits",
    "billing",
    "balance",
    "quota",
    "payment",
    "pay",
    "spend",
    "spending",
    "funds",
    "prepaid",
    "account",
    "key",
    "subscription",
    "invoice",
];

/// The fault of a response with this error status.
pub(super) fn fault(
    status: u16,
    headers: &HeaderMap,
    body: Vec<u8>,
    details: ErrorDetails,
    now: DateTime<Utc>,
) -> ProviderFault {
    let retry_after = retry_after(headers, now).or(details.retry_after);
    let mut fault = fault_of(status, details, body, retry_after);
    if let Some(refusal) = fault.refusal_mut() {
        refusal.headers = reply_headers::for_callers(headers);
    }
    fault
}

/// The fault of an error with this status: a response of its own, or an error within a reply.
pub(super) fn fault_of(
    status: u16,
    details: ErrorDetails,
    body: Vec<u8>,
    retry_after: Option<Duration>,
) -> ProviderFault {
    let means = match details.means {
        ErrorMeaning::WhatTheStatusSays if status == 403 && details.speaks_of(&OF_ACCESS, &body) => {
            ErrorMeaning::KeyRefused
        }
        // A 402 without a message concerns the account by which we call.
        ErrorMeaning::WhatTheStatusSays
            if status == 402 && (details.message.is_none() || details.speaks_of(&OF_BILLS, &body)) =>
        {
            ErrorMeaning::SpendLimit
        }
        means => means,
    };
    let refusal = refusal(status, details, body);
    match (status, means) {
        (400..=499, ErrorMeaning::KeyRefused) | (401, ErrorMeaning::WhatTheStatusSays) => {
            ProviderFault::KeyRefused(refusal)
        }
        (400..=499, ErrorMeaning::SpendLimit) => ProviderFault::SpendLimit(refusal),
        (429, _) => ProviderFault::TooFast { refusal, retry_after },
        (408 | 500.., _) => ProviderFault::Failed { refusal, retry_after },
        (400..=499, _) => ProviderFault::Refused(refusal),
        (other, _) => ProviderFault::Broken(format!("its status is {other}")),
    }
}

impl ErrorDetails {
    /// Whether the message or the code contains one of these words; without a message the body is searched.
    fn speaks_of(&self, words: &[&str], body: &[u8]) -> bool {
        let unread = self.message.is_none().then(|| String::from_utf8_lossy(body).into_owned());
        let said = self.message.iter().chain(&self.code).chain(&unread);
        said.flat_map(|text| text.split(|character: char| !character.is_ascii_alphanumeric()))
            .any(|word| words.iter().any(|known| word.eq_ignore_ascii_case(known)))
    }
}

fn refusal(status: u16, details: ErrorDetails, body: Vec<u8>) -> ProviderRefusal {
    let message = details.message.unwrap_or_else(|| format!("status {status} without a message"));
    ProviderRefusal { status, message, code: details.code, body, headers: Vec::new() }
}

/// Milliseconds, seconds (with a fraction) or a date, as the providers' own SDKs read it.
fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let number = |text: &str| text.parse::<f64>().ok();
    let milliseconds = text("retry-after-ms").and_then(number).map(|milliseconds| milliseconds / 1_000.0);
    let after = text("retry-after");
    if let Some(seconds) = milliseconds.or_else(|| after.and_then(number)) {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = DateTime::parse_from_rfc2822(after?).ok()?;
    Some((date.to_utc() - now).to_std().unwrap_or_default())
}

/// Google's duration format: `37s`, `0.5s`.
pub(super) fn google_duration(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.strip_suffix('s')?.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect()
    }

    fn now() -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2026, 10, 21, 7, 28, 0).unwrap()
    }

    #[test]
    fn a_pause_is_read_in_each_of_its_forms() {
        for (pairs, expected) in [
            (&[("retry-after", "2")][..], Some(2_000)),
            (&[("retry-after", " 0.25 ")], Some(250)),
            (&[("retry-after", "2"), ("retry-after-ms", "150")], Some(150)),
            (&[("retry-after", "Wed, 21 Oct 2026 07:28:30 GMT")], Some(30_000)),
            (&[("retry-after", "Wed, 21 Oct 2026 07:27:00 GMT")], Some(0)),
            (&[("retry-after", "-1")], None),
            (&[("retry-after", "1e300")], None),
            (&[("retry-after", "soon")], None),
            (&[], None),
        ] {
            let expected = expected.map(Duration::from_millis);
            assert_eq!(retry_after(&headers(pairs), now()), expected, "{pairs:?}");
        }
        assert_eq!(google_duration("37s"), Some(Duration::from_secs(37)));
        assert_eq!(google_duration("0.5s"), Some(Duration::from_millis(500)));
        assert_eq!((google_duration("-1s"), google_duration("5"), google_duration("xs")), (None, None, None));
    }

    #[test]
    fn a_status_says_what_can_be_done() {
        let kind = |status, means| {
            let details = ErrorDetails { means, ..ErrorDetails::default() };
            match fault(status, &HeaderMap::new(), Vec::new(), details, now()) {
                ProviderFault::KeyRefused(_) => "key",
                ProviderFault::SpendLimit(_) => "spend",
                ProviderFault::TooFast { .. } => "fast",
                ProviderFault::Failed { .. } => "failed",
                ProviderFault::Refused(_) => "refused",
                ProviderFault::Broken(_) => "broken",
                other => panic!("{other:?}"),
            }
        };
        for (status, expected) in [
            (400, "refused"),
            (401, "key"),
            (402, "spend"),
            (403, "refused"),
            (404, "refused"),
            (408, "failed"),
            (409, "refused"),
            (413, "refused"),
            (422, "refused"),
            (429, "fast"),
            (500, "failed"),
            (503, "failed"),
            (504, "failed"),
            (529, "failed"),
            (302, "broken"),
        ] {
            assert_eq!(kind(status, ErrorMeaning::WhatTheStatusSays), expected, "{status}");
        }
        assert_eq!((kind(400, ErrorMeaning::KeyRefused), kind(429, ErrorMeaning::SpendLimit)), ("key", "spend"));
        assert_eq!((kind(401, ErrorMeaning::SpendLimit), kind(403, ErrorMeaning::KeyRefused)), ("spend", "key"));
        assert_eq!((kind(403, ErrorMeaning::SpendLimit), kind(500, ErrorMeaning::SpendLimit)), ("spend", "failed"));
    }

    #[test]
    fn a_403_or_402_is_the_callers_unless_it_speaks_of_our_account() {
        let kind = |status, message: &str, code: Option<&str>| {
            let details = ErrorDetails {
                message: Some(message.to_owned()),
                code: code.map(str::to_owned),
                ..ErrorDetails::default()
            };
            match fault_of(status, details, Vec::new(), None) {
                ProviderFault::KeyRefused(_) => "key",
                ProviderFault::SpendLimit(_) => "spend",
                ProviderFault::Refused(_) => "refused",
                other => panic!("{other:?}"),
            }
        };
        for (status, message, code, expected) in [
            (403, "Your API key does not have permission to use the specified resource.", None, "key"),
            (403, "Country, region, or territory not supported", Some("unsupported_country_region_territory"), "key"),
            (403, "Method doesn't allow unregistered callers.", Some("PERMISSION_DENIED"), "key"),
            (403, "Project `p` does not have access to model `m`", Some("model_not_found"), "key"),
            (403, "no", Some("invalid_api_key"), "key"),
            (403, "Your input was flagged by the moderation.", Some("permission_error"), "refused"),
            (403, "You do not have permission to access the File x or it may not exist.", None, "refused"),
            (402, "Your credit balance is too low.", None, "spend"),
            (402, "This request asks for more than max_tokens allows.", None, "refused"),
            (404, "no such key", None, "refused"),
            (422, "the account", None, "refused"),
        ] {
            assert_eq!(kind(status, message, code), expected, "{status} {message}");
        }
        let unread = |body: &[u8]| fault_of(403, ErrorDetails::default(), body.to_vec(), None);
        assert!(matches!(unread(b"{\"detail\":\"bad API key\"}"), ProviderFault::KeyRefused(_)));
        assert!(matches!(unread(b"<html>no</html>"), ProviderFault::Refused(_)));
    }
}
