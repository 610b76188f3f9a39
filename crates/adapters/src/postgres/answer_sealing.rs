//! Sealing of stored responses: a response may contain a secret that is shown once, and the database alone must not
//! reveal it.
//!
//! The encryption key is derived from the server's secret and the client's idempotency key, which is stored nowhere. An
//! attacker with the database, or even with the server's secret too, still lacks the client's part.

use std::time::Duration;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, KeyInit, Nonce};
use domain::idempotency::StoredAnswer;
use hmac::{Hmac, Mac};
use ports::idempotency::AnswerClaim;
use ports::store::StoreError;
use rand::RngExt;
use sha2::{Digest, Sha256};

/// The nonce precedes the ciphertext. A random nonce is safe, since every claim has an encryption key of its own.
const NONCE_LENGTH: usize = 12;

pub(super) struct AnswerSealing {
    secret: Vec<u8>,
    ttl: Duration,
}

impl AnswerSealing {
    pub(super) const fn new(secret: Vec<u8>, ttl: Duration) -> Self {
        Self { secret, ttl }
    }

    /// How long a response is kept, in seconds.
    pub(super) const fn ttl_seconds(&self) -> f64 {
        self.ttl.as_secs_f64()
    }

    /// The stored identifier of a claim.
    pub(super) fn digest(claim: &AnswerClaim) -> Vec<u8> {
        Sha256::digest(claim.key.as_str().as_bytes()).to_vec()
    }

    pub(super) fn seal(&self, claim: &AnswerClaim, answer: &StoredAnswer) -> Result<Vec<u8>, StoreError> {
        let nonce = rand::rng().random::<[u8; NONCE_LENGTH]>();
        let bound = bound_to(answer.status, &answer.content_type);
        let sealed = self
            .cipher(claim)?
            .encrypt(&Nonce::from(nonce), Payload { msg: &answer.body, aad: &bound })
            .map_err(|_| StoreError::Unexpected("an answer could not be sealed".into()))?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// The decrypted body. `None` if it was sealed with another secret or has been changed.
    pub(super) fn open(&self, claim: &AnswerClaim, status: u16, content_type: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LENGTH>()?;
        let bound = bound_to(status, content_type);
        self.cipher(claim).ok()?.decrypt(&Nonce::from(*nonce), Payload { msg: sealed, aad: &bound }).ok()
    }

    fn cipher(&self, claim: &AnswerClaim) -> Result<ChaCha20Poly1305, StoreError> {
        let mut derivation = Hmac::<Sha256>::new_from_slice(&self.secret)
            .map_err(|_| StoreError::Unexpected("the secret for answers cannot be used".into()))?;
        // An idempotency key is visible ASCII and a user id has a fixed length, so no two claims give the same input.
        derivation.update(claim.key.as_str().as_bytes());
        derivation.update(&[0]);
        derivation.update(claim.caller.0.as_bytes());
        derivation.update(claim.route.as_bytes());
        let key: [u8; 32] = derivation.finalize().into_bytes().into();
        Ok(ChaCha20Poly1305::new(&Key::from(key)))
    }
}

/// The fields stored in clear beside the body; the seal detects changes to them.
fn bound_to(status: u16, content_type: &str) -> Vec<u8> {
    [status.to_be_bytes().as_slice(), content_type.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use domain::idempotency::IdempotencyKey;
    use domain::identity::CallerRights;
    use domain::users::UserId;
    use uuid::Uuid;

    use super::*;

    fn claim(key: &str, route: &str) -> AnswerClaim {
        AnswerClaim {
            caller: UserId(Uuid::nil()),
            route: route.into(),
            key: IdempotencyKey::parse(key).unwrap(),
            fingerprint: vec![1],
            rights: CallerRights::default(),
        }
    }

    #[test]
    fn an_answer_opens_under_its_own_claim_only() {
        let sealing = AnswerSealing::new(b"secret".to_vec(), Duration::from_secs(1));
        let answer = StoredAnswer { status: 201, content_type: "application/json".into(), body: b"sk_live_x".to_vec() };
        let mine = claim("key-1", "POST /api/keys");
        let sealed = sealing.seal(&mine, &answer).unwrap();
        let open = |sealing: &AnswerSealing, claim: &AnswerClaim, status, sealed: &[u8]| {
            sealing.open(claim, status, "application/json", sealed)
        };
        assert_eq!(open(&sealing, &mine, 201, &sealed), Some(answer.body.clone()));
        assert!(!sealed.windows(9).any(|part| part == b"sk_live_x"));
        assert_eq!(open(&sealing, &claim("key-2", "POST /api/keys"), 201, &sealed), None);
        assert_eq!(open(&sealing, &claim("key-1", "POST /api/users"), 201, &sealed), None);
        assert_eq!(open(&sealing, &mine, 200, &sealed), None);
        assert_eq!(open(&sealing, &mine, 201, &sealed[..8]), None);
        let other = AnswerSealing::new(b"another".to_vec(), Duration::from_secs(1));
        assert_eq!(open(&other, &mine, 201, &sealed), None);
        assert_ne!(sealing.seal(&mine, &answer).unwrap(), sealed);
    }
}
