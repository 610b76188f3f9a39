//! Production: settings that are refused there, since with them the service could not keep its promises.
//!
//! The check refuses a missing, known or guessable signing key, a short metrics token, trusted proxies that include
//! everyone, and providers and Stripe over plain HTTP. A secret is guessable if it repeats itself, counts up or down,
//! has few different characters, or is made of the usual placeholder words.

use std::collections::BTreeSet;

use anyhow::bail;
use ipnet::IpNet;

use super::providers::configured;
use super::shape::{AiSettings, SecretText, Settings};

/// Secrets from tutorials. No production may use one.
const WELL_KNOWN: [&str; 4] =
    ["super-secret-jwt-token-with-at-least-32-characters-long", "secret", "changeme", "your-super-secret-jwt-token"];

/// The usual placeholder words for secrets. The longer ones come first, so that they are removed whole.
const WORDS: [&str; 31] = [
    "qwertyuiop",
    "asdfghjkl",
    "zxcvbnm",
    "battery",
    "correct",
    "metrics",
    "staple",
    "characters",
    "password",
    "passphrase",
    "changeme",
    "supabase",
    "production",
    "product",
    "example",
    "default",
    "signing",
    "secret",
    "change",
    "minimum",
    "super",
    "please",
    "admin",
    "token",
    "least",
    "your",
    "test",
    "base",
    "long",
    "jwt",
    "key",
];

/// How many characters of a secret must be left without such words.
const LEFT_AT_LEAST: usize = 12;
/// How many different characters a secret has at least.
const DIFFERENT_AT_LEAST: usize = 10;
/// How long a metrics token is at least.
const METRICS_TOKEN_LENGTH: usize = 16;

/// The widest network of proxies, in bits of the prefix: a private one (`10.0.0.0/8`, `fc00::/7`).
const PROXY_BITS_V4: u8 = 8;
const PROXY_BITS_V6: u8 = 7;
/// The prefix before an IPv4 address that is written as IPv6 (`::ffff:0:0/96`).
const MAPPED_BITS: u8 = 96;

pub fn check(settings: &Settings) -> anyhow::Result<()> {
    if !settings.auth.signing_key.is_set() {
        bail!("auth.signing_key is not set; in production it must be (PB__AUTH__SIGNING_KEY, at least 32 characters)");
    }
    for (name, secret) in [
        ("auth.signing_key", &settings.auth.signing_key),
        ("auth.supabase.jwt_secret", &settings.auth.supabase.jwt_secret),
        ("admin.password", &settings.admin.password),
    ] {
        if secret.expose().is_some_and(|text| WELL_KNOWN.contains(&text)) {
            bail!("{name} is a secret that everybody knows; choose another for production");
        }
    }
    for (name, secret) in [
        ("auth.signing_key", &settings.auth.signing_key),
        ("auth.supabase.jwt_secret", &settings.auth.supabase.jwt_secret),
        ("metrics.token", &settings.metrics.token),
    ] {
        refuse_guessable(name, secret)?;
    }
    if settings.metrics.token.expose().is_some_and(|token| token.len() < METRICS_TOKEN_LENGTH) {
        bail!("metrics.token is shorter than {METRICS_TOKEN_LENGTH} characters");
    }
    let keys_of_tokens = settings.auth.supabase.jwks_url.as_str();
    if keys_of_tokens.starts_with("http://") {
        bail!(
            "auth.supabase.jwks_url is plain http: whoever stands in between could give the keys that tokens are checked with"
        );
    }
    if settings.stripe.secret_key.is_set() && goes_in_clear(&settings.stripe.base_url) {
        bail!("stripe.base_url begins with http://, so Stripe's secret key would go in clear. Use https://");
    }
    check_proxies(&settings.server.trusted_proxies)?;
    check_providers(&settings.ai)
}

fn refuse_guessable(name: &str, secret: &SecretText) -> anyhow::Result<()> {
    match secret.expose().and_then(weakness) {
        Some(why) => bail!("{name} can be guessed: it {why}. Make one with `openssl rand -base64 48`"),
        None => Ok(()),
    }
}

/// Why a secret can be guessed, if it can.
fn weakness(secret: &str) -> Option<&'static str> {
    let bytes = secret.as_bytes();
    let different = bytes.iter().collect::<BTreeSet<_>>().len();
    if different < DIFFERENT_AT_LEAST {
        return Some("has too few different characters");
    }
    let repeats = |period: usize| bytes.iter().zip(bytes.iter().skip(period)).all(|(one, other)| one == other);
    if (1..=bytes.len() / 2).any(repeats) {
        return Some("repeats itself");
    }
    let steps = bytes.iter().zip(bytes.iter().skip(1)).filter(|(one, other)| one.abs_diff(**other) <= 1).count();
    if steps * 2 > bytes.len() {
        return Some("counts up, down or stays");
    }
    let mut left = secret.to_lowercase();
    for word in WORDS {
        left = left.replace(word, "");
    }
    let left = left.bytes().filter(u8::is_ascii_alphanumeric).count();
    let is_words = left < secret.len() && left < LEFT_AT_LEAST;
    is_words.then_some("is made of the words that people write there")
}

fn check_proxies(proxies: &[String]) -> anyhow::Result<()> {
    for text in proxies {
        let Ok(network) = text.trim().parse::<IpNet>() else { continue };
        let (bits, least) = match network {
            IpNet::V4(network) => (network.prefix_len(), PROXY_BITS_V4),
            // IPv4 addresses that are written as IPv6 ones.
            IpNet::V6(network) if network.network().to_ipv4_mapped().is_some() => {
                (network.prefix_len().saturating_sub(MAPPED_BITS), PROXY_BITS_V4)
            }
            IpNet::V6(network) => (network.prefix_len(), PROXY_BITS_V6),
        };
        if bits < least {
            bail!(
                "server.trusted_proxies has {network}: whoever calls from there may name any address as theirs. Name your \
                 proxies alone"
            );
        }
    }
    Ok(())
}

fn check_providers(ai: &AiSettings) -> anyhow::Result<()> {
    for provider in &configured(ai)? {
        if !ai.allow_plain_http && goes_in_clear(&provider.settings.base_url) {
            bail!(
                "{}.base_url begins with http://, so the provider's key would go in clear. Use https://, or set \
                 ai.allow_plain_http where the network is your own",
                provider.section
            );
        }
    }
    Ok(())
}

/// Whether what is sent to this address can be read on its way.
fn goes_in_clear(url: &str) -> bool {
    let Ok(uri) = url.trim().parse::<actix_web::http::Uri>() else { return false };
    if uri.scheme_str() != Some("http") {
        return false;
    }
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let is_here =
        host.parse::<std::net::IpAddr>().map_or(host.eq_ignore_ascii_case("localhost"), |ip| ip.is_loopback());
    !is_here
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::load::load;
    use super::*;

    const GOOD: &str = "q8Zr2VYc0mXb7kTn4LsWd9HfJpAe5Gu1";

    fn started(variables: &[(&str, &str)]) -> anyhow::Result<Settings> {
        let all = [("PB__ENVIRONMENT", "production"), ("PB__AUTH__SIGNING_KEY", GOOD)];
        let all = all.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        load(&all, Path::new("/nonexistent"))
    }

    #[test]
    fn a_key_that_can_be_guessed_is_none() {
        for key in [
            "a".repeat(32),
            "ab".repeat(20),
            "correcthorse".repeat(4),
            "0123456789abcdefghijklmnopqrstuvwxyz".to_owned(),
            "zyxwvutsrqponmlkjihgfedcba9876543210".to_owned(),
            "super-secret-signing-key-change-me-please".to_owned(),
            "your-super-secret-jwt-token-at-least-32-characters-long".to_owned(),
            "passwordpasswordpasswordpassword1".to_owned(),
            "aaaabbbbccccddddaaaabbbbccccdddd".to_owned(),
        ] {
            let error = started(&[("PB__AUTH__SIGNING_KEY", &key)]).err().map(|error| format!("{error:#}"));
            assert!(error.as_ref().is_some_and(|error| !error.contains(&key)), "{key}: {error:?}");
        }
        for key in [
            GOOD,
            "a-key-that-stands-in-no-tutorial-at-all",
            "4f1c0a9be2d87365c1d0f7a3b2e49586",
            "the quick brown fox jumps over it",
        ] {
            assert!(started(&[("PB__AUTH__SIGNING_KEY", key)]).is_ok(), "{key}");
        }
    }

    #[test]
    fn proxies_are_not_everybody() {
        for wide in [
            "0.0.0.0/0",
            "::/0",
            "10.0.0.1,0.0.0.0/0",
            "128.0.0.0/1",
            "8000::/1",
            "::ffff:0:0/96",
            "::ffff:128.0.0.0/97",
        ] {
            assert!(started(&[("PB__SERVER__TRUSTED_PROXIES", wide)]).is_err(), "{wide}");
        }
        for own in ["10.0.0.0/8", "192.0.2.7,fc00::/7", "127.0.0.1", "::ffff:10.0.0.0/104"] {
            assert!(started(&[("PB__SERVER__TRUSTED_PROXIES", own)]).is_ok(), "{own}");
        }
    }

    #[test]
    fn a_provider_s_key_does_not_go_in_clear() {
        let with = |url: &str| started(&[("PB__AI__CLAUDE__BASE_URL", url)]);
        for open in ["http://api.example.com", "HTTP://api.example.com/v1", "http://10.0.0.7:8080"] {
            assert!(with(open).is_err(), "{open}");
        }
        for closed in ["https://api.example.com", "http://localhost:8080", "http://127.0.0.1:1", "http://[::1]:1"] {
            assert!(with(closed).is_ok(), "{closed}");
        }
        let wanted = [("PB__AI__CLAUDE__BASE_URL", "http://vllm.internal"), ("PB__AI__ALLOW_PLAIN_HTTP", "true")];
        assert!(started(&wanted).is_ok());
    }

    #[test]
    fn stripe_s_key_does_not_go_in_clear() {
        let with = |url| started(&[("PB__STRIPE__BASE_URL", url), ("PB__STRIPE__SECRET_KEY", "sk_test_1")]);
        assert!(with("http://stripe.example.com").is_err());
        assert!(with("https://stripe.example.com").is_ok() && with("http://127.0.0.1:12111").is_ok());
    }

    #[test]
    fn a_metrics_token_has_some_length() {
        for short in ["x", "scrape-me", "aaaaaaaaaaaaaaaaaaaa"] {
            assert!(started(&[("PB__METRICS__TOKEN", short)]).is_err(), "{short}");
        }
        assert!(started(&[("PB__METRICS__TOKEN", "pRw7_x2-Lq9vT4zN")]).is_ok());
    }
}
