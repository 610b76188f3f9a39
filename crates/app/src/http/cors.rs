//! CORS: which pages of other origins may read the responses (`server.cors_origins`).
//!
//! Promise: an origin that is not listed gets no header that lets its page read anything. No header here lets a browser
//! send cookies, so pages of other origins send a token or an API key. Preflights are answered before routing.

use actix_web::HttpResponse;
use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY,
};
use actix_web::http::{Method, Uri};
use anyhow::bail;

const METHODS: &str = "GET, POST, PUT, PATCH, DELETE";
const REQUEST_HEADERS: &str = "Authorization, X-API-Key, X-Goog-Api-Key, Content-Type, Idempotency-Key, X-Request-Id, \
    X-Product-Base-Lower-Max-Tokens, X-Product-Base-Strict-Hold";
const ANSWER_HEADERS: &str = "X-Request-Id, Idempotency-Replayed, Retry-After, X-Should-Retry, X-Product-Base-Call-Id, \
    X-Product-Base-Max-Tokens, X-Product-Base-Cost-Usd";

/// Further headers of the providers' SDKs, with many names that change with their versions.
const OF_SDKS: [&str; 4] = ["x-stainless-", "anthropic-", "openai-", "x-goog-"];

/// How long a browser may cache a preflight, in seconds.
const MAX_AGE: &str = "600";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cors {
    /// Pages of every origin.
    Everyone,
    /// Pages of these origins; of none, if the list is empty.
    Listed(Vec<String>),
}

impl Cors {
    pub fn new(origins: &[String]) -> anyhow::Result<Self> {
        let mut listed = Vec::with_capacity(origins.len());
        for origin in origins.iter().map(|origin| origin.trim()).filter(|origin| !origin.is_empty()) {
            if origin == "*" {
                return Ok(Self::Everyone);
            }
            if !is_origin(origin) {
                bail!(
                    "server.cors_origins has `{origin}`, which is no origin: write https://app.example.com, without a path"
                );
            }
            listed.push(origin.to_ascii_lowercase());
        }
        Ok(Self::Listed(listed))
    }

    /// The response to a preflight of an allowed origin. For others the route answers as to any OPTIONS.
    pub fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<HttpResponse> {
        let asks = method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if !asks || self.granted(headers.get(ORIGIN)?).is_none() {
            return None;
        }
        Some(
            HttpResponse::NoContent()
                .insert_header((ACCESS_CONTROL_ALLOW_METHODS, METHODS))
                .insert_header((ACCESS_CONTROL_ALLOW_HEADERS, request_headers(headers)))
                .insert_header((ACCESS_CONTROL_MAX_AGE, MAX_AGE))
                .finish(),
        )
    }

    /// Lets the page read the response, if its origin may.
    pub fn grant(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        if matches!(self, Self::Listed(origins) if !origins.is_empty()) {
            // The response depends on the origin, which caches have to know.
            answer.append(VARY, HeaderValue::from_static("Origin"));
        }
        if let Some(granted) = origin.and_then(|origin| self.granted(origin)) {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, granted);
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(ANSWER_HEADERS));
        }
    }

    fn granted(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match self {
            Self::Everyone => Some(HeaderValue::from_static("*")),
            Self::Listed(origins) => {
                let asking = origin.to_str().ok()?;
                origins.iter().any(|listed| listed.eq_ignore_ascii_case(asking)).then(|| origin.clone())
            }
        }
    }
}

/// A scheme, a host and perhaps a port, and nothing after them.
fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return false };
    format!("{scheme}://{authority}").eq_ignore_ascii_case(text) && !authority.as_str().contains('@')
}

/// The headers that the service knows, and those of the requested ones that SDKs send.
fn request_headers(asking: &HeaderMap) -> String {
    let asked = asking.get(ACCESS_CONTROL_REQUEST_HEADERS).and_then(|asked| asked.to_str().ok()).unwrap_or_default();
    let names = asked.split(',').filter_map(|name| name.trim().parse::<HeaderName>().ok());
    let of_sdks = names.filter(|name| OF_SDKS.iter().any(|begin| name.as_str().starts_with(begin)));
    of_sdks.fold(REQUEST_HEADERS.to_owned(), |allowed, name| allowed + ", " + name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str]) -> anyhow::Result<Cors> {
        Cors::new(&origins.iter().map(|origin| (*origin).to_owned()).collect::<Vec<_>>())
    }

    fn asked_by(origin: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_static(origin));
        headers.insert(ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("POST"));
        headers
    }

    fn granted(cors: &Cors, origin: &'static str) -> Option<String> {
        let mut answer = HeaderMap::new();
        cors.grant(Some(&HeaderValue::from_static(origin)), &mut answer);
        answer.get(ACCESS_CONTROL_ALLOW_ORIGIN).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn only_listed_origins_may_read() {
        let some = cors(&["https://app.example.com", "http://localhost:5173"]).unwrap();
        assert_eq!(granted(&some, "https://app.example.com").as_deref(), Some("https://app.example.com"));
        assert_eq!(granted(&some, "http://localhost:5173").as_deref(), Some("http://localhost:5173"));
        for other in ["https://app.example.com.evil.test", "http://app.example.com", "http://localhost", "null"] {
            assert_eq!(granted(&some, other), None, "{other}");
        }
        assert_eq!(granted(&cors(&[]).unwrap(), "https://app.example.com"), None);
        assert_eq!(granted(&cors(&["*"]).unwrap(), "https://app.example.com").as_deref(), Some("*"));
    }

    #[test]
    fn preflights_are_answered_to_listed_origins() {
        let some = cors(&["https://app.example.com"]).unwrap();
        let answer = some.preflight(&Method::OPTIONS, &asked_by("https://app.example.com")).unwrap();
        assert_eq!(answer.status().as_u16(), 204);
        assert!(
            answer.headers().get(ACCESS_CONTROL_ALLOW_HEADERS).unwrap().to_str().unwrap().contains("Idempotency-Key")
        );
        assert!(some.preflight(&Method::OPTIONS, &asked_by("https://evil.test")).is_none());
        assert!(some.preflight(&Method::GET, &asked_by("https://app.example.com")).is_none());
        assert!(some.preflight(&Method::OPTIONS, &HeaderMap::new()).is_none());
    }

    #[test]
    fn the_headers_of_sdks_are_let_through() {
        let asked = HeaderValue::from_static("authorization, x-stainless-retry-count, Anthropic-Version, x-evil");
        let mut headers = asked_by("https://app.example.com");
        headers.insert(ACCESS_CONTROL_REQUEST_HEADERS, asked);
        let answer = cors(&["*"]).unwrap().preflight(&Method::OPTIONS, &headers).unwrap();
        let allowed = answer.headers().get(ACCESS_CONTROL_ALLOW_HEADERS).unwrap().to_str().unwrap();
        assert!(allowed.ends_with(", x-stainless-retry-count, anthropic-version"), "{allowed}");
    }

    #[test]
    fn what_is_no_origin_is_refused_at_the_start() {
        for text in ["app.example.com", "https://app.example.com/", "https://app.example.com/path", "https://", "null"]
        {
            assert!(cors(&[text]).is_err(), "{text}");
        }
    }
}
