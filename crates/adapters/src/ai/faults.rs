//! Faults: what a provider's refusal means for whoever could try again.

use std::time::Duration;

use chrono::{DateTime, Utc};
use ports::ai::{ProviderFault, Refusal};
use reqwest::header::HeaderMap;

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

/// The fault of an answer with this status, which is no success.
pub(super) fn fault(status: u16, headers: &HeaderMap, body: Vec<u8>, told: Told, now: DateTime<Utc>) -> ProviderFault {
    let retry_after = retry_after(headers, now).or(told.retry_after);
    let means = told.means;
    let refusal = refusal(status, told, body);
    match (status, means) {
        (400..=499, Means::KeyRefused) | (401 | 403, Means::WhatTheStatusSays) => ProviderFault::KeyRefused(refusal),
        // 402 is the provider's own bill, which a caller of ours neither knows nor pays.
        (400..=499, Means::SpendLimit) | (402, _) => ProviderFault::SpendLimit(refusal),
        (429, _) => ProviderFault::TooFast { refusal, retry_after },
        (408 | 500.., _) => ProviderFault::Failed { refusal, retry_after },
        (400..=499, _) => ProviderFault::Refused(refusal),
        (other, _) => ProviderFault::Broken(format!("its status is {other}")),
    }
}

pub(super) fn refusal(status: u16, told: Told, body: Vec<u8>) -> Refusal {
    let message = told.message.unwrap_or_else(|| format!("status {status} without a message"));
    Refusal { status, message, code: told.code, body }
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
            (403, "key"),
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
        assert_eq!((kind(403, Means::SpendLimit), kind(500, Means::SpendLimit)), ("spend", "failed"));
    }
}
