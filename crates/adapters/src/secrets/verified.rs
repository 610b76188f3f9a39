//! Caches recently verified tokens, so that a frequent caller does not cost a signature check per request.
//!
//! Promises: a cached result is at most 60 s old and never outlives the token. Refusals are not cached, so a token that
//! becomes valid (a rotated key) is accepted at once. The price: a token whose key is withdrawn works for up to 60 s
//! more. A hit costs one SHA-256 of the token and a look-up. Bounded to 100,000 entries of about 100 bytes; the token
//! itself is not stored.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use ports::clock::Clock;
use ports::identity::{TokenRefused, TokenVerifier, VerifiedIdentity};
use sha2::{Digest as _, Sha256};

use super::claims::TOKEN_MAX_BYTES;
use crate::cache::ClockCache;

const ENTRIES_MAX: usize = 100_000;
const REMEMBERED_FOR: TimeDelta = TimeDelta::seconds(60);

type Digest = [u8; 32];

pub struct CachedVerifier<V> {
    verifier: V,
    recent: ClockCache<Digest, Remembered>,
    clock: Arc<dyn Clock>,
}

struct Remembered {
    identity: VerifiedIdentity,
    until: DateTime<Utc>,
}

impl<V: TokenVerifier> CachedVerifier<V> {
    pub fn new(verifier: V, clock: Arc<dyn Clock>) -> Self {
        Self { verifier, recent: ClockCache::new(ENTRIES_MAX), clock }
    }

    fn recall(&self, digest: &Digest) -> Option<VerifiedIdentity> {
        let (identity, until) =
            self.recent.get_with(digest, |remembered| (remembered.identity.clone(), remembered.until))?;
        (self.clock.now() < until).then_some(identity)
    }

    fn remember(&self, digest: Digest, identity: &VerifiedIdentity) {
        let now = self.clock.now();
        let until = identity.expires_at.min(now + REMEMBERED_FOR);
        // A token within the leeway after its expiry cannot be cached.
        if now < until {
            self.recent.put(digest, Remembered { identity: identity.clone(), until });
        }
    }
}

fn digest(token: &str) -> Digest {
    Sha256::digest(token.as_bytes()).into()
}

#[async_trait]
impl<V: TokenVerifier> TokenVerifier for CachedVerifier<V> {
    async fn verify(&self, token: &str) -> Result<VerifiedIdentity, TokenRefused> {
        // No valid token is longer, so a longer text is not hashed.
        if token.len() > TOKEN_MAX_BYTES {
            return self.verifier.verify(token).await;
        }
        let digest = digest(token);
        if let Some(identity) = self.recall(&digest) {
            return Ok(identity);
        }
        let identity = self.verifier.verify(token).await?;
        self.remember(digest, &identity);
        Ok(identity)
    }

    fn verify_at_once(&self, token: &str) -> Option<VerifiedIdentity> {
        if token.len() > TOKEN_MAX_BYTES {
            return None;
        }
        let digest = digest(token);
        self.recall(&digest).or_else(|| {
            let identity = self.verifier.verify_at_once(token)?;
            self.remember(digest, &identity);
            Some(identity)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use domain::users::UserId;
    use testkit::clock::FixedClock;
    use uuid::Uuid;

    use super::super::testing;
    use super::*;

    /// Accepts every token but `bad`, until `expires_at`, and counts the calls; accepts `swift` at once.
    struct Counting {
        asked: Arc<AtomicUsize>,
        expires_at: DateTime<Utc>,
    }

    impl Counting {
        fn identity(&self) -> VerifiedIdentity {
            VerifiedIdentity {
                user_id: UserId(Uuid::nil()),
                issued_at: None,
                authenticated_at: None,
                session_id: None,
                scope: ports::identity::TokenScope::Everything,
                expires_at: self.expires_at,
            }
        }
    }

    #[async_trait]
    impl TokenVerifier for Counting {
        async fn verify(&self, token: &str) -> Result<VerifiedIdentity, TokenRefused> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            if token == "bad" {
                return Err(TokenRefused::Invalid("it is bad".to_owned()));
            }
            Ok(self.identity())
        }

        fn verify_at_once(&self, token: &str) -> Option<VerifiedIdentity> {
            (token == "swift").then(|| {
                self.asked.fetch_add(1, Ordering::SeqCst);
                self.identity()
            })
        }
    }

    fn cached(lives: TimeDelta) -> (CachedVerifier<Counting>, Arc<AtomicUsize>, Arc<FixedClock>) {
        let clock = testing::clock();
        let asked = Arc::<AtomicUsize>::default();
        let counting = Counting { asked: Arc::clone(&asked), expires_at: clock.now() + lives };
        (CachedVerifier::new(counting, clock.clone()), asked, clock)
    }

    #[tokio::test]
    async fn a_good_token_is_checked_once_a_minute() {
        let (verifier, asked, clock) = cached(TimeDelta::hours(1));
        for _ in 0..10 {
            verifier.verify("good").await.unwrap();
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        clock.advance(TimeDelta::seconds(59));
        verifier.verify("good").await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        clock.advance(TimeDelta::seconds(1));
        verifier.verify("good").await.unwrap();
        verifier.verify("good").await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn nothing_is_remembered_beyond_the_expiry() {
        let (verifier, asked, clock) = cached(TimeDelta::seconds(5));
        verifier.verify("good").await.unwrap();
        clock.advance(TimeDelta::seconds(5));
        verifier.verify("good").await.unwrap();
        verifier.verify("good").await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn refusals_and_other_tokens_are_checked_every_time() {
        let (verifier, asked, _) = cached(TimeDelta::hours(1));
        verifier.verify("good").await.unwrap();
        verifier.verify("another").await.unwrap();
        for _ in 0..3 {
            assert!(verifier.verify("bad").await.is_err());
        }
        assert_eq!(asked.load(Ordering::SeqCst), 5);
    }

    #[tokio::test]
    async fn what_can_be_said_at_once_is_remembered_too() {
        let (verifier, asked, clock) = cached(TimeDelta::hours(1));
        assert_eq!(verifier.verify_at_once("slow"), None, "its verifier has to wait for somebody");
        let identity = verifier.verify("slow").await.unwrap();
        assert_eq!(verifier.verify_at_once("slow"), Some(identity.clone()), "now it is remembered");
        for _ in 0..3 {
            assert_eq!(verifier.verify_at_once("swift"), Some(identity.clone()));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        clock.advance(TimeDelta::seconds(60));
        assert_eq!(verifier.verify_at_once("slow"), None);
        let endless = "x".repeat(TOKEN_MAX_BYTES + 1);
        verifier.verify(&endless).await.unwrap();
        assert_eq!(verifier.verify_at_once(&endless), None, "what is no token is not remembered");
    }
}
