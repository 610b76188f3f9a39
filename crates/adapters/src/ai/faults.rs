//! Faults: what a provider's refusal means for whoever could try again.
//!
//! A refusal is the caller's own doing unless it speaks of the account by which we call: a 401 always does, a 402 or a 403
//! does where its words say so. The caller gets a refusal that the caller caused, with the provider's status.

use std::time::Duration;

use chrono::{DateTime, Utc};
use ports::ai::{ProviderFault, Refusal};
use reqwest::header::HeaderMap;

use super::reply_headers;

/// What the body of a refusal says, as far as it is understood.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub message: Option<String>,
    pub code: Option<String>,
    pub means: Means,
    pub retry_after: Option<Duration>,
}

/// What a body says that its status does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Means {
    #[default]
    WhatTheStatusSays,
    KeyRefused,
    SpendLimit,
}

/// Words of a 403 that speaks of who calls, and so of our account, and not of what is asked.
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

/// Words of a 402 that speaks of the bill that we pay.
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

/// The fault of an answer with this status, which is no success.
pub(super) fn fault(status: u16, headers: &HeaderMap, body: Vec<u8>, told: Told, now: DateTime<Utc>) -> ProviderFault {
    let retry_after = retry_after(headers, now).or(told.retry_after);
    let mut fault = fault_of(status, told, body, retry_after);
    if let Some(refusal) = fault.refusal_mut() {
        refusal.headers = reply_headers::for_callers(headers);
    }
    fault
}

/// The fault of an error with this status, wherever it stands: in an answer of its own, or within one.
pub(super) fn fault_of(status: u16, told: Told, body: Vec<u8>, retry_after: Option<Duration>) -> ProviderFault {
    let means = match told.means {
        Means::WhatTheStatusSays if status == 403 && told.speaks_of(&OF_ACCESS, &body) => Means::KeyRefused,
        // A 402 without a message is about the account by which we call.
        Means::WhatTheStatusSays if status == 402 && (told.message.is_none() || told.speaks_of(&OF_BILLS, &body)) => {
            Means::SpendLimit
        }
        means => means,
    };
    let refusal = refusal(status, told, body);
    match (status, means) {
        (400..=499, Means::KeyRefused) | (401, Means::WhatTheStatusSays) => ProviderFault::KeyRefused(refusal),
        (400..=499, Means::SpendLimit) => ProviderFault::SpendLimit(refusal),
        (429, _) => ProviderFault::TooFast { refusal, retry_after },
        (408 | 500.., _) => ProviderFault::Failed { refusal, retry_after },
        (400..=499, _) => ProviderFault::Refused(refusal),
        (other, _) => ProviderFault::Broken(format!("its status is {other}")),
    }
}

impl Told {
    /// Whether the message or the code has one of these words; where there is no message, whether the body has.
    fn speaks_of(&self, words: &[&str], body: &[u8]) -> bool {
        let unread = self.message.is_none().then(|| String::from_utf8_lossy(body).into_owned());
        let said = self.message.iter().chain(&self.code).chain(&unread);
        said.flat_map(|text| text.split(|character: char| !character.is_ascii_alphanumeric()))
            .any(|word| words.iter().any(|known| word.eq_ignore_ascii_case(known)))
    }
}

fn refusal(status: u16, told: Told, body: Vec<u8>) -> Refusal {
    let message = told.message.unwrap_or_else(|| format!("status {status} without a message"));
    Refusal { status, message, code: told.code, body, headers: Vec::new() }
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

/// Google's duration: `37s`, `0.5s`.
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
            let told = Told { means, ..Told::default() };
            match fault(status, &HeaderMap::new(), Vec::new(), told, now()) {
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
            assert_eq!(kind(status, Means::WhatTheStatusSays), expected, "{status}");
        }
        assert_eq!((kind(400, Means::KeyRefused), kind(429, Means::SpendLimit)), ("key", "spend"));
        assert_eq!((kind(401, Means::SpendLimit), kind(403, Means::KeyRefused)), ("spend", "key"));
        assert_eq!((kind(403, Means::SpendLimit), kind(500, Means::SpendLimit)), ("spend", "failed"));
    }

    #[test]
    fn a_403_or_402_is_the_callers_unless_it_speaks_of_our_account() {
        let kind = |status, message: &str, code: Option<&str>| {
            let told = Told { message: Some(message.to_owned()), code: code.map(str::to_owned), ..Told::default() };
            match fault_of(status, told, Vec::new(), None) {
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
        let unread = |body: &[u8]| fault_of(403, Told::default(), body.to_vec(), None);
        assert!(matches!(unread(b"{\"detail\":\"bad API key\"}"), ProviderFault::KeyRefused(_)));
        assert!(matches!(unread(b"<html>no</html>"), ProviderFault::Refused(_)));
    }
}
