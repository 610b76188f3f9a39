//! Refresh tokens: opaque secrets, each with one successor.
//!
//! Promises: the successor is an HMAC of the token under a key that nothing else uses, so that only a holder of both
//! the token and the key can make it, and it is the same in every process with the signing key. Only hashes are stored.
//! Costs an HMAC.

use hmac::{Hmac, KeyInit, Mac};
use ports::identity::{OpaqueSecret, RefreshTokenMint, SecretError, SecretHash, SecretMint};
use sha2::Sha256;

use super::opaque::{OpaqueSecrets, PREFIX};

/// The purpose of the derived key: the signing key itself signs access tokens.
const PURPOSE: &[u8] = b"product-base: successors of refresh tokens";

/// The prefix of a marked text. No refresh token begins with it.
const MARK: &[u8] = b"mark:";

/// The one MAC algorithm for all uses here.
type Mac256 = Hmac<Sha256>;

pub struct RefreshTokens {
    keyed: Mac256,
}

impl RefreshTokens {
    pub fn new(signing_key: &[u8]) -> Result<Self, SecretError> {
        let unusable = |_| SecretError("the signing key cannot be used for refresh tokens".to_owned());
        let mut derivation = Mac256::new_from_slice(signing_key).map_err(unusable)?;
        derivation.update(PURPOSE);
        let key = derivation.finalize().into_bytes();
        Ok(Self { keyed: Mac256::new_from_slice(&key).map_err(unusable)? })
    }
}

impl SecretMint for RefreshTokens {
    fn mint(&self) -> OpaqueSecret {
        OpaqueSecrets.mint()
    }

    fn hash(&self, secret: &str) -> SecretHash {
        OpaqueSecrets.hash(secret)
    }
}

impl RefreshTokenMint for RefreshTokens {
    fn successor(&self, token: &str) -> OpaqueSecret {
        let mut mac = self.keyed.clone();
        mac.update(token.as_bytes());
        let secret = format!("{PREFIX}{}", hex::encode(mac.finalize().into_bytes()));
        let hash = self.hash(&secret);
        OpaqueSecret { secret, hash }
    }

    fn mark(&self, text: &str) -> Vec<u8> {
        let mut mac = self.keyed.clone();
        mac.update(MARK);
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_one_successor_and_another_key_makes_another() {
        let (here, there) = (RefreshTokens::new(b"a signing key").unwrap(), RefreshTokens::new(b"another").unwrap());
        let first = here.mint();
        let second = here.successor(&first.secret);
        let again = RefreshTokens::new(b"a signing key").unwrap().successor(&first.secret);
        assert!(second == again && second.hash == here.hash(&second.secret));
        let others =
            [first.secret.clone(), here.successor(&second.secret).secret, there.successor(&first.secret).secret];
        assert!(!others.contains(&second.secret));
        assert!(
            here.mark("a") == here.mark("a") && here.mark("a") != here.mark("b") && here.mark("a") != there.mark("a")
        );
        assert!(second.secret.strip_prefix(PREFIX).is_some_and(|random| random.len() == 64));
    }
}
