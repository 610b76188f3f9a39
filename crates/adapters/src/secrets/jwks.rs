//! The issuer's public keys, fetched from its JWKS and cached.
//!
//! Promises: a known key is found without waiting, also while the issuer is down, for at most a day; whatever callers
//! send, the issuer is asked at most once in ten seconds and by one request at a time; a response is read up to 64 KiB
//! and at most 32 keys are kept. A key that the issuer withdraws is dropped after about ten minutes of use. Costs a map
//! look-up; an unknown key id costs at most one fetch, three seconds.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use ports::clock::Clock;
use ports::identity::{SecretError, TokenRefused};
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinHandle;

use super::claims::invalid;
use crate::addresses::is_loopback;

/// The shortest time between two fetches, so that tokens with made-up key ids do not put load on the issuer.
const COOLDOWN: TimeDelta = TimeDelta::seconds(10);

/// From this age on a key set is renewed in the background of requests (Supabase's own caches keep it as long).
const FRESH_FOR: TimeDelta = TimeDelta::minutes(10);

/// How long keys stay usable while their issuer is down.
const KEPT_FOR: TimeDelta = TimeDelta::hours(24);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
const BODY_MAX_BYTES: usize = 64 * 1024;
const KEYS_MAX: usize = 32;

/// Sizes of RSA keys in bytes: 2048 bits are the least that RFC 7518 allows, 4096 the most that the library verifies.
const RSA_MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=512;

/// A public key and the one algorithm that it verifies.
pub(super) struct PinnedKey {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

struct KeySet {
    keys: HashMap<String, Arc<PinnedKey>>,
    fetched_at: DateTime<Utc>,
}

pub(super) struct Jwks {
    shared: Arc<Shared>,
}

struct Shared {
    url: Url,
    client: Client,
    clock: Arc<dyn Clock>,
    latest: RwLock<Option<Arc<KeySet>>>,
    /// Locked during a fetch; contains the start of the last one.
    last_attempt: Arc<Mutex<Option<DateTime<Utc>>>>,
}

impl Jwks {
    pub(super) fn new(url: &str, clock: Arc<dyn Clock>) -> Result<Self, SecretError> {
        let url = Url::parse(url).map_err(|error| SecretError(format!("the JWKS URL is malformed: {error}")))?;
        let on_loopback = is_loopback(&url);
        if url.scheme() != "https" && !(url.scheme() == "http" && on_loopback) {
            return Err(SecretError("the JWKS URL has to be https, or http on the loopback".to_owned()));
        }
        // Building a client panics if no cryptography provider is installed. A second installation changes nothing.
        rustls::crypto::ring::default_provider().install_default().ok();
        let builder = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(FETCH_TIMEOUT);
        // A proxy cannot reach our loopback.
        let builder = if on_loopback { builder.no_proxy() } else { builder };
        let client = builder.build().map_err(|error| SecretError(format!("no client for the JWKS: {error}")))?;
        let latest = RwLock::new(None);
        Ok(Self { shared: Arc::new(Shared { url, client, clock, latest, last_attempt: Arc::default() }) })
    }

    /// Scheme, host and port of the URL.
    pub(super) fn origin(&self) -> String {
        self.shared.url.origin().ascii_serialization()
    }

    /// The key with this id. An unknown id fetches the key set again, unless it was fetched within the cooldown.
    pub(super) async fn find(&self, key_id: &str) -> Result<Arc<PinnedKey>, TokenRefused> {
        if let Some(set) = self.shared.in_force()
            && let Some(key) = set.keys.get(key_id)
        {
            if self.shared.clock.now() - set.fetched_at >= FRESH_FOR {
                self.renew_behind();
            }
            return Ok(Arc::clone(key));
        }
        self.renew().await;
        let Some(set) = self.shared.in_force() else {
            return Err(TokenRefused::Unavailable("no key set could be fetched".to_owned()));
        };
        set.keys.get(key_id).cloned().ok_or_else(|| invalid("its key is not known"))
    }

    /// Waits for the fetch in progress, or starts one. A caller that waited is within the cooldown and starts none.
    async fn renew(&self) {
        let last_attempt = Arc::clone(&self.shared.last_attempt).lock_owned().await;
        if let Some(fetch) = self.start(last_attempt)
            && let Err(error) = fetch.await
        {
            tracing::error!(%error, "the fetch of the identity provider's keys ended early");
        }
    }

    fn renew_behind(&self) {
        if let Ok(last_attempt) = Arc::clone(&self.shared.last_attempt).try_lock_owned() {
            // The task goes on by itself; its result is for later requests.
            drop(self.start(last_attempt));
        }
    }

    /// Fetches in a task of its own, which outlives its request: otherwise clients that disconnect early could start
    /// every fetch and let none finish.
    fn start(&self, mut last_attempt: OwnedMutexGuard<Option<DateTime<Utc>>>) -> Option<JoinHandle<()>> {
        let now = self.shared.clock.now();
        // A clock that was set back must not extend the cooldown, hence a range.
        if last_attempt.is_some_and(|last| (TimeDelta::zero()..COOLDOWN).contains(&(now - last))) {
            return None;
        }
        *last_attempt = Some(now);
        let shared = Arc::clone(&self.shared);
        Some(tokio::spawn(async move {
            shared.load(now).await;
            drop(last_attempt);
        }))
    }
}

impl Shared {
    fn in_force(&self) -> Option<Arc<KeySet>> {
        let latest = self.latest.read().unwrap_or_else(PoisonError::into_inner).clone();
        latest.filter(|set| self.clock.now() - set.fetched_at < KEPT_FOR)
    }

    /// Replaces the key set by the issuer's response; after a failure the old set stays.
    async fn load(&self, now: DateTime<Utc>) {
        let issuer = self.url.origin().ascii_serialization();
        match self.fetch().await {
            Ok(keys) => {
                if keys.is_empty() {
                    tracing::warn!(issuer, "the identity provider publishes no usable key, so every token is refused");
                }
                let set = Arc::new(KeySet { keys, fetched_at: now });
                *self.latest.write().unwrap_or_else(PoisonError::into_inner) = Some(set);
            }
            Err(reason) => tracing::warn!(issuer, reason, "the identity provider's keys could not be fetched"),
        }
    }

    async fn fetch(&self) -> Result<HashMap<String, Arc<PinnedKey>>, String> {
        let mut response = self.client.get(self.url.clone()).send().await.map_err(without_url)?;
        if response.status() != StatusCode::OK {
            return Err(format!("it answered {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(without_url)? {
            if body.len() + chunk.len() > BODY_MAX_BYTES {
                return Err("its answer is larger than 64 KiB".to_owned());
            }
            body.extend_from_slice(&chunk);
        }
        let document: Document = serde_json::from_slice(&body).map_err(|_| "its answer is no JWKS".to_owned())?;
        Ok(document.pinned())
    }
}

/// The URL can contain a key in its query, so it is not logged.
fn without_url(error: reqwest::Error) -> String {
    let error = error.without_url();
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// A JWKS (RFC 7517, section 5). Keys of an unknown shape must be ignored, so each is parsed on its own.
#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct PublishedKey {
    kid: String,
    kty: String,
    crv: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Document {
    fn pinned(self) -> HashMap<String, Arc<PinnedKey>> {
        let published = self.keys.into_iter().filter_map(|key| serde_json::from_value::<PublishedKey>(key).ok());
        let pinned = published.filter_map(|key| key.pin().map(|pinned| (key.kid, Arc::new(pinned))));
        pinned.take(KEYS_MAX).collect()
    }
}

impl PublishedKey {
    /// The key's type determines the algorithm, and `alg` may only repeat it. A symmetric key (`oct`) is refused: every
    /// reader of the document could sign with it.
    fn pin(&self) -> Option<PinnedKey> {
        let verifies = self.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|name| name == "verify"));
        if !verifies || self.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return None;
        }
        let (algorithm, names): (_, &[&str]) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("EC", Some("P-256")) => (Algorithm::ES256, &["ES256"]),
            ("OKP", Some("Ed25519")) => (Algorithm::EdDSA, &["EdDSA", "Ed25519"]),
            ("RSA", _) => (Algorithm::RS256, &["RS256"]),
            _ => return None,
        };
        if self.alg.as_deref().is_some_and(|alg| !names.contains(&alg)) {
            return None;
        }
        Some(PinnedKey { algorithm, key: self.key(algorithm).filter(has_sound_size)? })
    }

    fn key(&self, algorithm: Algorithm) -> Option<DecodingKey> {
        let key = match algorithm {
            Algorithm::ES256 => DecodingKey::from_ec_components(self.x.as_deref()?, self.y.as_deref()?),
            Algorithm::EdDSA => DecodingKey::from_ed_components(self.x.as_deref()?),
            _ => DecodingKey::from_rsa_components(self.n.as_deref()?, self.e.as_deref()?),
        };
        key.ok()
    }
}

/// The library does not check sizes: it panics at an Ed25519 key of less than 32 bytes (jsonwebtoken 11.1), and it
/// would verify a token with an RSA key of 512 bits.
fn has_sound_size(key: &DecodingKey) -> bool {
    match (key.family(), key.kind()) {
        (jsonwebtoken::AlgorithmFamily::Ed, DecodingKeyKind::SecretOrDer(point)) => point.len() == 32,
        (jsonwebtoken::AlgorithmFamily::Ec, DecodingKeyKind::SecretOrDer(point)) => point.len() == 65,
        (_, DecodingKeyKind::RsaModulusExponent { n, .. }) => {
            let leading_zeros = n.iter().take_while(|byte| **byte == 0).count();
            RSA_MODULUS_BYTES.contains(&(n.len() - leading_zeros))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
