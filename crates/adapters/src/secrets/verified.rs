//! Tokens that were found good a moment ago, so that a chatty caller does not pay for a signature at every request.
//!
//! Promised: an answer is at most 60 s old and never outlives the token; refusals are not remembered, so a token that
//! becomes good (a rotated key) is accepted at once. The price: a token whose key is withdrawn works for up to 60 s
//! more. A hit costs one SHA-256 of the token and a look-up. Bounded to 100,000 entries of about 80 bytes, besides the
//! cache's own book-keeping; the token itself is not kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use moka::Expiry;
use moka::future::Cache;
use ports::clock::Clock;
use ports::identity::{TokenRefused, TokenVerifier, VerifiedIdentity};
use sha2::{Digest, Sha256};

use super::claims::TOKEN_MAX_BYTES;

const ENTRIES_MAX: u64 = 100_000;
const REMEMBERED_FOR: TimeDelta = TimeDelta::seconds(60);

pub struct CachedVerifier<V> {
    verifier: V,
    recent: Cache<[u8; 32], Remembered>,
    clock: Arc<dyn Clock>,
}

#[derive(Clone)]
struct Remembered {
    identity: VerifiedIdentity,
    until: DateTime<Utc>,
    /// The same moment for the cache, which counts by a clock of its own and frees the memory by it.
    lasts: Duration,
}

struct AtItsEnd;

impl Expiry<[u8; 32], Remembered> for AtItsEnd {
    fn expire_after_create(&self, _: &[u8; 32], remembered: &Remembered, _: Instant) -> Option<Duration> {
        Some(remembered.lasts)
    }

    fn expire_after_update(
        &self,
        _: &[u8; 32],
        remembered: &Remembered,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(remembered.lasts)
    }
}

impl<V: TokenVerifier> CachedVerifier<V> {
    pub fn new(verifier: V, clock: Arc<dyn Clock>) -> Self {
        let recent = Cache::builder().max_capacity(ENTRIES_MAX).expire_after(AtItsEnd).build();
        Self { verifier, recent, clock }
    }

    async fn remember(&self, digest: [u8; 32], identity: &VerifiedIdentity) {
        let now = self.clock.now();
        let until = identity.expires_at.min(now + REMEMBERED_FOR);
        // A token within the leeway after its expiry has nothing left to be remembered for.
        if let Ok(lasts) = (until - now).to_std()
            && !lasts.is_zero()
        {
            self.recent.insert(digest, Remembered { identity: identity.clone(), until, lasts }).await;
        }
    }
}

#[async_trait]
impl<V: TokenVerifier> TokenVerifier for CachedVerifier<V> {
    async fn verify(&self, token: &str) -> Result<VerifiedIdentity, TokenRefused> {
        if token.len() > TOKEN_MAX_BYTES {
            return self.verifier.verify(token).await;
        }
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(remembered) = self.recent.get(&digest).await
            && self.clock.now() < remembered.until
        {
            return Ok(remembered.identity);
        }
        let identity = self.verifier.verify(token).await?;
        self.remember(digest, &identity).await;
        Ok(identity)
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

    /// Says yes to every token but `bad`, until `expires_at`, and counts.
    struct Counting {
        asked: Arc<AtomicUsize>,
        expires_at: DateTime<Utc>,
    }

    #[async_trait]
    impl TokenVerifier for Counting {
        async fn verify(&self, token: &str) -> Result<VerifiedIdentity, TokenRefused> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            if token == "bad" {
                return Err(TokenRefused::Invalid("it is bad".to_owned()));
            }
            Ok(VerifiedIdentity { user_id: UserId(Uuid::nil()), expires_at: self.expires_at })
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
    async fn the_cache_lets_go_of_an_entry_by_itself() {
        let (verifier, _, _) = cached(TimeDelta::milliseconds(50));
        verifier.verify("good").await.unwrap();
        verifier.recent.run_pending_tasks().await;
        assert_eq!(verifier.recent.entry_count(), 1);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        verifier.recent.run_pending_tasks().await;
        assert_eq!(verifier.recent.entry_count(), 0);
    }
}
