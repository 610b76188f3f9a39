//! Headers of a provider's response, as our caller gets them.
//!
//! Promises: a provider's request id is always in `X-Product-Base-Upstream-Request-Id`; `X-Request-Id` stays ours.
//! Headers of rate limits and retries keep their names.

use actix_web::http::header::{HeaderName, HeaderValue, RETRY_AFTER};

use crate::http::problem::Problem;

static UPSTREAM_REQUEST_ID: HeaderName = HeaderName::from_static("x-product-base-upstream-request-id");

/// The headers with a request id at the three providers and at proxies before them.
const NAMES_OF_REQUESTS: [&str; 3] = ["x-request-id", "request-id", "x-goog-request-id"];
/// Ours in our own responses, the provider's in its responses.
const REQUEST_ID: &str = "request-id";

/// For a provider's own response, including its refusals. `named` is the request id in its body.
pub fn shown(headers: &[(String, String)], named: Option<&str>) -> Vec<(HeaderName, HeaderValue)> {
    let of_request = headers.iter().find(|(name, _)| NAMES_OF_REQUESTS.contains(&name.as_str()));
    let id = of_request.map(|(_, value)| value.as_str()).or(named);
    let id = id.and_then(|id| HeaderValue::from_str(id).ok()).map(|id| (UPSTREAM_REQUEST_ID.clone(), id));
    let others = headers.iter().filter(|(name, _)| !NAMES_OF_REQUESTS.contains(&name.as_str()) || name == REQUEST_ID);
    let others = others.filter_map(|(name, value)| {
        Some((HeaderName::try_from(name.as_str()).ok()?, HeaderValue::from_str(value).ok()?))
    });
    others.chain(id).collect()
}

/// The same for a problem of ours.
pub fn beside(problem: Problem, headers: &[(String, String)]) -> Problem {
    let waits = problem.headers.iter().any(|(name, _)| *name == RETRY_AFTER);
    let passed =
        shown(headers, None).into_iter().filter(|(name, _)| name != REQUEST_ID && !(waits && *name == RETRY_AFTER));
    passed.fold(problem, |problem, (name, value)| problem.with_header(name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn texts(headers: &[(HeaderName, HeaderValue)]) -> Vec<(String, String)> {
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn names_of_requests_do_not_take_the_place_of_ours() {
        let upstream = "x-product-base-upstream-request-id";
        let sent = pairs(&[("x-request-id", "r1"), ("x-ratelimit-limit-tokens", "9"), ("openai-processing-ms", "3")]);
        let expected = pairs(&[("x-ratelimit-limit-tokens", "9"), ("openai-processing-ms", "3"), (upstream, "r1")]);
        assert_eq!(texts(&shown(&sent, Some("in the body"))), expected);
        assert_eq!(texts(&shown(&[], Some("r2"))), pairs(&[(upstream, "r2")]));
        let sent = pairs(&[("request-id", "req_1"), ("retry-after", "3"), ("bad name", "x")]);
        let expected = pairs(&[("request-id", "req_1"), ("retry-after", "3"), (upstream, "req_1")]);
        assert_eq!(texts(&shown(&sent, None)), expected);
        let problem = beside(Problem::too_many("x", "y", 7), &sent);
        assert_eq!(texts(&problem.headers), pairs(&[("retry-after", "7"), (upstream, "req_1")]));
    }
}
