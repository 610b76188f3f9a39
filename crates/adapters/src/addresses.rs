//! Facts about a URL that must be known before anything is sent to it.

use std::net::IpAddr;

use reqwest::Url;

/// Whether it is on this machine: no proxy can reach it, and no other machine can read the traffic.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether requests to it can be read on the way: no TLS, and another machine.
pub(crate) fn leaves_unsealed(url: &Url) -> bool {
    url.scheme() == "http" && !is_loopback(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_the_machine_unsealed_is_known_by_its_address() {
        for (base_url, leaves) in [
            ("https://api.openai.com/v1", false),
            ("http://api.example.com/v1", true),
            ("http://192.168.0.7:9000", true),
            ("http://127.0.0.1:9000/v1", false),
            ("http://localhost:9000", false),
            ("http://[::1]:9000", false),
            ("http://localhost.example.com", true),
        ] {
            assert_eq!(leaves_unsealed(&base_url.parse().unwrap()), leaves, "{base_url}");
        }
    }
}
