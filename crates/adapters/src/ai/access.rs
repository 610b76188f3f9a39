//! A provider's address, and how our API key and the settings' own headers and query parameters are sent to it.

use std::str::FromStr;

use domain::ai::{Dialect, ProviderId, ProviderProfile};
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;
use tracing::warn;

use crate::addresses::leaves_unsealed;

/// Headers that only the transport sets.
const OF_TRANSPORT: [&str; 4] = ["content-type", "content-length", "host", "transfer-encoding"];

/// Where the API key is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderAuth {
    /// `Authorization: Bearer <key>`.
    Bearer,
    Header(String),
    Query(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("it is `bearer`, `header:<name>` or `query:<name>`")]
pub struct AuthRefused;

impl ProviderAuth {
    /// Where the built-in providers of a dialect expect the key.
    pub fn of(dialect: Dialect) -> Self {
        match dialect {
            Dialect::OpenAiChat => Self::Bearer,
            Dialect::Anthropic => Self::Header("x-api-key".to_owned()),
            Dialect::Gemini => Self::Header("x-goog-api-key".to_owned()),
        }
    }
}

impl FromStr for ProviderAuth {
    type Err = AuthRefused;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "bearer" => Ok(Self::Bearer),
            Some(("header", name)) if is_free_header(name) => Ok(Self::Header(name.to_owned())),
            Some(("query", name)) if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Ok(Self::Query(name.to_owned()))
            }
            _ => Err(AuthRefused),
        }
    }
}

/// Whether a header of this name may be set by the settings.
fn is_free_header(name: &str) -> bool {
    HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| !OF_TRANSPORT.contains(&name.as_str()))
}

/// A provider's address, our API key for it, and what else each request to it has.
#[derive(Clone, Copy)]
pub struct ProviderAccess<'a> {
    pub base_url: &'a str,
    pub api_key: &'a str,
    /// `None`: as the dialect's own provider expects it.
    pub auth: Option<&'a ProviderAuth>,
    pub headers: &'a [(String, String)],
    pub query: &'a [(String, String)],
}

impl<'a> ProviderAccess<'a> {
    /// The access to a provider that needs nothing but the key.
    pub const fn of(base_url: &'a str, api_key: &'a str) -> Self {
        Self { base_url, api_key, auth: None, headers: &[], query: &[] }
    }
}

#[derive(Debug, Error)]
pub enum AccessRefused {
    #[error("the base URL of {0} is no http or https address")]
    Url(ProviderId),
    #[error("the key of {0} has characters that no header can carry")]
    Key(ProviderId),
    #[error("the header `{1}` of {0} cannot be sent")]
    Header(ProviderId, String),
    #[error("no client for {0}: {1}")]
    Client(ProviderId, String),
}

/// What every request to a provider has: the address, the key, and the settings' own headers and query parameters.
pub(super) struct RequestBase {
    pub url: Url,
    pub headers: HeaderMap,
    pub query: Vec<(String, String)>,
}

impl RequestBase {
    pub(super) fn new(profile: ProviderProfile, access: ProviderAccess<'_>) -> Result<Self, AccessRefused> {
        let id = profile.id;
        let url = Url::parse(access.base_url).map_err(|_| AccessRefused::Url(id))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(AccessRefused::Url(id));
        }
        if leaves_unsealed(&url) {
            warn!(provider = %id, "the key of this provider goes over an address without TLS");
        }
        let (mut headers, mut query) = (HeaderMap::new(), access.query.to_vec());
        for (name, value) in access.headers {
            let refused = || AccessRefused::Header(id, name.clone());
            if !is_free_header(name) {
                return Err(refused());
            }
            let value = HeaderValue::try_from(value).map_err(|_| refused())?;
            headers.insert(HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused())?, value);
        }
        let (name, value) = match access.auth.cloned().unwrap_or_else(|| ProviderAuth::of(profile.dialect)) {
            ProviderAuth::Bearer => ("authorization".to_owned(), format!("Bearer {}", access.api_key)),
            ProviderAuth::Header(name) => (name, access.api_key.to_owned()),
            ProviderAuth::Query(name) => {
                query.push((name, access.api_key.to_owned()));
                return Ok(Self { url, headers, query });
            }
        };
        let mut key = HeaderValue::try_from(value).map_err(|_| AccessRefused::Key(id))?;
        key.set_sensitive(true);
        headers.insert(HeaderName::from_bytes(name.as_bytes()).map_err(|_| AccessRefused::Header(id, name))?, key);
        Ok(Self { url, headers, query })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_goes_where_the_settings_say() {
        for (text, auth) in [
            ("bearer", ProviderAuth::Bearer),
            ("header:api-key", ProviderAuth::Header("api-key".to_owned())),
            ("query:key", ProviderAuth::Query("key".to_owned())),
        ] {
            assert_eq!(text.parse(), Ok(auth));
        }
        for bad in ["", "Bearer", "header:", "header:a b", "header:host", "query:", "query:a b", "basic", "api-key"] {
            assert_eq!(bad.parse::<ProviderAuth>(), Err(AuthRefused), "{bad}");
        }
        let sent = |auth: &str| {
            let auth: ProviderAuth = auth.parse().unwrap();
            let (headers, query) = ([("x-extra".to_owned(), "1".to_owned())], [("v".to_owned(), "2".to_owned())]);
            let access = ProviderAccess {
                auth: Some(&auth),
                headers: &headers,
                query: &query,
                ..ProviderAccess::of("https://x.test/", "the-key")
            };
            let base = RequestBase::new(ProviderProfile::OPENAI, access).unwrap();
            let mut headers: Vec<String> =
                base.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
            headers.sort();
            (headers.join(", "), base.query)
        };
        let v = || ("v".to_owned(), "2".to_owned());
        assert_eq!(sent("bearer"), ("authorization: Bearer the-key, x-extra: 1".to_owned(), vec![v()]));
        assert_eq!(sent("header:api-key"), ("api-key: the-key, x-extra: 1".to_owned(), vec![v()]));
        let key = ("key".to_owned(), "the-key".to_owned());
        assert_eq!(sent("query:key"), ("x-extra: 1".to_owned(), vec![v(), key]));
    }

    #[test]
    fn a_header_that_cannot_be_sent_is_named() {
        for (name, value) in [("x y", "1"), ("Host", "x"), ("x-extra", "a\nb")] {
            let headers = [(name.to_owned(), value.to_owned())];
            let access = ProviderAccess { headers: &headers, ..ProviderAccess::of("https://x.test/", "k") };
            let refused = RequestBase::new(ProviderProfile::OPENAI, access).err();
            assert!(matches!(refused, Some(AccessRefused::Header(_, refused)) if refused == name), "{name}");
        }
    }
}
