//! Opaque secrets: refresh tokens. They contain no data; they are looked up by their hash, and only the hash is stored.
//!
//! Promises: 256 random bits, so that a fast hash without a salt is enough. Minting or finding one costs a SHA-256.

use ports::identity::{OpaqueSecret, SecretHash, SecretMint};
use sha2::{Digest, Sha256};

use super::base62;

/// Identifies the kind of secret for scanners, and for operators who find one in a wrong place.
pub(super) const PREFIX: &str = "rt_";

/// 43 characters of base62 have 256.03 bits.
const LENGTH: usize = 43;

#[derive(Clone, Copy, Debug, Default)]
pub struct OpaqueSecrets;

impl SecretMint for OpaqueSecrets {
    fn mint(&self) -> OpaqueSecret {
        let secret = format!("{PREFIX}{}", base62::random(LENGTH));
        let hash = self.hash(&secret);
        OpaqueSecret { secret, hash }
    }

    fn hash(&self, secret: &str) -> SecretHash {
        Sha256::digest(secret.as_bytes()).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_secret_is_found_by_its_hash_and_never_repeats() {
        let minted: Vec<OpaqueSecret> = (0..1_000).map(|_| OpaqueSecrets.mint()).collect();
        for OpaqueSecret { secret, hash } in &minted {
            assert_eq!(*hash, OpaqueSecrets.hash(secret));
            assert_eq!(hash.len(), 32);
            let random = secret.strip_prefix("rt_").unwrap();
            assert!(random.len() == 43 && base62::is_base62(random.as_bytes()));
        }
        let different: BTreeSet<&str> = minted.iter().map(|minted| minted.secret.as_str()).collect();
        assert_eq!(different.len(), minted.len());
    }

    #[test]
    fn the_hash_is_plain_sha_256() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex::encode(OpaqueSecrets.hash("abc")), expected);
    }
}
