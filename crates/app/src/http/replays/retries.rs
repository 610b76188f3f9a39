//! Retries, as clients report them: SDKs that retry by themselves say so in a header.

use actix_web::http::header::HeaderMap;

/// The prefix of the headers of SDKs that retry by themselves.
const OF_SDKS: &str = "x-stainless-";

/// How often a request was sent before, under the names that SDKs and their wrappers use. A client that sends one
/// retries by itself.
const RETRY_COUNTS: [&str; 3] = ["x-stainless-retry-count", "x-retry-count", "x-retry-attempt"];

/// What a request reports of its retries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryHeaders {
    /// Whether it comes from an SDK that retries by itself.
    pub is_sdk: bool,
    /// Whether it counts its retries, so that ours would multiply them.
    pub is_counted: bool,
    pub count: u32,
}

impl RetryHeaders {
    pub fn of(headers: &HeaderMap) -> Self {
        let counts = RETRY_COUNTS.iter().filter_map(|name| headers.get(*name)?.to_str().ok()?.trim().parse().ok());
        let count: Option<u32> = counts.max();
        let is_sdk = headers.keys().any(|name| name.as_str().starts_with(OF_SDKS));
        Self { is_sdk: is_sdk || count.is_some(), is_counted: count.is_some(), count: count.unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn retries_are_told_by_a_header() {
        for (headers, is_sdk, is_counted, count) in [
            (&[][..], false, false, 0),
            (&[("x-stainless-lang", "js")], true, false, 0),
            (&[("x-stainless-retry-count", "0")], true, true, 0),
            (&[("x-stainless-lang", "js"), ("x-stainless-retry-count", "2")], true, true, 2),
            (&[("x-retry-count", "1")], true, true, 1),
            (&[("x-retry-attempt", " 3 ")], true, true, 3),
            (&[("x-stainless-retry-count", "-1")], true, false, 0),
            (&[("x-retry-count", "often")], false, false, 0),
        ] {
            let pairs = headers.iter();
            let map: HeaderMap =
                pairs.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect();
            assert_eq!(RetryHeaders::of(&map), RetryHeaders { is_sdk, is_counted, count }, "{headers:?}");
        }
    }
}
