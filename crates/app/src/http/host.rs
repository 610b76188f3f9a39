//! Host: whether a request names its host as RFC 9112 requires.

use actix_web::http::Version;
use actix_web::http::header::{HOST, HeaderMap};

use super::problem::Problem;

/// Exactly one host, perhaps with a port; a request of HTTP/1.0 may have none.
pub fn check(version: Version, headers: &HeaderMap) -> Result<(), Problem> {
    let mut named = headers.get_all(HOST);
    let refused = |why: &str| Err(Problem::malformed(format!("The header `Host` {why}.")));
    match (named.next(), named.next()) {
        (None, _) if version < Version::HTTP_11 => Ok(()),
        (None, _) => refused("is missing"),
        (Some(_), Some(_)) => refused("was sent more than once"),
        (Some(host), None) if host.to_str().is_ok_and(is_host) => Ok(()),
        (Some(_), None) => refused("is no host and port"),
    }
}

/// `uri-host [ ":" port ]` of RFC 3986. Empty is allowed: it is what a URI without an authority has.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        // The colons of an address in brackets are part of it.
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (text, ""),
    };
    if !port.bytes().all(|byte| byte.is_ascii_digit()) || port.len() > 5 {
        return false;
    }
    if let Some(inside) = host.strip_prefix('[') {
        let address = inside.strip_suffix(']').unwrap_or_default();
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte);
    host.bytes().all(fits) && has_whole_escapes(host)
}

/// Whether each `%` is followed by two hexadecimal digits.
fn has_whole_escapes(host: &str) -> bool {
    host.split('%').skip(1).all(|rest| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2)
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for good in
            ["a", "a.example.com", "localhost:8080", "127.0.0.1:1", "[::1]", "[2001:db8::1]:443", "a_b", "", "a%20b"]
        {
            assert!(is_host(good), "{good}");
        }
        for bad in
            ["a b@c/", "a b", "a/b", "a@b", "a:b", "a:123456", "[::1", "[x]", "::1", "a\\b", "a?b", "a#b", "a%2", "<a>"]
        {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn there_is_exactly_one() {
        let mut headers = HeaderMap::new();
        assert!(check(Version::HTTP_10, &headers).is_ok());
        assert_eq!(check(Version::HTTP_11, &headers).unwrap_err().status.as_u16(), 400);
        headers.append(HOST, HeaderValue::from_static("a"));
        assert!(check(Version::HTTP_11, &headers).is_ok());
        headers.append(HOST, HeaderValue::from_static("a"));
        assert!(check(Version::HTTP_10, &headers).is_err());
    }
}
