//! API keys: `<prefix><12 public id>_<28 secret><6 checksum>`, all base62.
//!
//! Promises: the secret has 166 random bits, so that SHA-256 without a salt is enough at rest; an API key with a wrong
//! format or checksum is refused here and never reaches the database. Minting or recognizing one costs two hashes of
//! less than 80 bytes; a text of another length costs one comparison of lengths.

use std::fmt;

use ports::api_keys::{KeyMint, MintedKey};
use ports::identity::SecretError;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use super::base62;

const PUBLIC_ID_LENGTH: usize = 12;
const SECRET_LENGTH: usize = 28;
const CHECKSUM_LENGTH: usize = 6;
const LENGTH_AFTER_PREFIX: usize = PUBLIC_ID_LENGTH + 1 + SECRET_LENGTH + CHECKSUM_LENGTH;

/// The longest prefix. A whole API key then has at most 79 bytes, and no longer text is ever hashed.
const PREFIX_MAX_LENGTH: usize = 32;

/// How much of a key is stored to recognize it, the width of the column: with the usual prefix, the whole public id.
const SHOWN_LENGTH: usize = 20;

/// Mints and recognizes API keys that begin with the product's prefix (the setting `api_keys.prefix`).
#[derive(Clone)]
pub struct ApiKeys {
    prefix: String,
}

impl ApiKeys {
    /// Refuses a prefix that would not survive a header or a double click.
    pub fn new(prefix: String) -> Result<Self, SecretError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if prefix.is_empty() || prefix.len() > PREFIX_MAX_LENGTH || !prefix.bytes().all(fits) {
            return Err(SecretError("the prefix of API keys is 1 to 32 letters, digits and underscores".to_owned()));
        }
        Ok(Self { prefix })
    }

    fn has_form(&self, presented: &str) -> bool {
        if presented.len() != self.prefix.len() + LENGTH_AFTER_PREFIX {
            return false;
        }
        let Some(rest) = presented.as_bytes().strip_prefix(self.prefix.as_bytes()) else { return false };
        let Some((public_id, [b'_', secret @ ..])) = rest.split_at_checked(PUBLIC_ID_LENGTH) else { return false };
        base62::is_base62(public_id) && base62::is_base62(secret)
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ApiKeys").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl KeyMint for ApiKeys {
    fn mint(&self) -> MintedKey {
        let prefix = format!("{}{}", self.prefix, base62::random(PUBLIC_ID_LENGTH));
        let mut secret = format!("{prefix}_{}", base62::random(SECRET_LENGTH));
        let checksum = checksum(secret.as_bytes());
        secret.extend(checksum.map(char::from));
        let last_four = checksum.iter().skip(CHECKSUM_LENGTH - 4).copied().map(char::from).collect();
        let hash = hash(&secret);
        MintedKey { prefix: secret.chars().take(SHOWN_LENGTH).collect(), secret, last_four, hash }
    }

    fn recognise(&self, presented: &str) -> Option<String> {
        if !self.has_form(presented) {
            return None;
        }
        let (signed, shown) = presented.as_bytes().split_last_chunk::<CHECKSUM_LENGTH>()?;
        bool::from(checksum(signed).ct_eq(shown)).then(|| hash(presented))
    }
}

fn hash(key: &str) -> String {
    hex::encode(Sha256::digest(key.as_bytes()))
}

/// The first 32 bits of the SHA-256 of the text before it: one mistyped key in four billion passes.
fn checksum(signed: &[u8]) -> [u8; CHECKSUM_LENGTH] {
    let digest = Sha256::digest(signed);
    let number = digest.iter().take(4).fold(0_u32, |number, byte| (number << 8) | u32::from(*byte));
    base62::six_digits(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> ApiKeys {
        ApiKeys::new("sk_live_".to_owned()).unwrap()
    }

    #[test]
    fn a_key_has_the_written_form() {
        let minted = keys().mint();
        assert_eq!(minted.secret.len(), "sk_live_".len() + 12 + 1 + 28 + 6);
        assert_eq!(minted.prefix.len(), "sk_live_".len() + 12);
        assert!(minted.secret.starts_with(&format!("{}_", minted.prefix)));
        assert!(minted.secret.ends_with(&minted.last_four) && minted.last_four.len() == 4);
        assert_eq!(minted.hash, hex::encode(Sha256::digest(minted.secret.as_bytes())));
    }

    /// The format must stay valid for keys in use: this one was made by the rule and must be recognized for ever.
    #[test]
    fn a_known_key_is_recognised() {
        let signed = "sk_live_8fK2xQ1mZp0a_0123456789ABCDEFGHIJKLMNOPQR";
        let key = format!("{signed}{KNOWN_CHECKSUM}");
        assert_eq!(keys().recognise(&key), Some(hash(&key)));
    }

    const KNOWN_CHECKSUM: &str = "3ZAmFy";

    #[test]
    fn a_key_of_another_prefix_or_length_is_not_recognised() {
        let minted = keys().mint();
        let other = ApiKeys::new("sk_test_".to_owned()).unwrap();
        assert_eq!(other.recognise(&minted.secret), None);
        assert_eq!(keys().recognise(""), None);
        assert_eq!(keys().recognise("sk_live_"), None);
        assert_eq!(keys().recognise(&format!("{}0", minted.secret)), None);
        assert_eq!(keys().recognise(&format!(" {}", minted.secret)), None);
        assert_eq!(keys().recognise(&minted.secret.repeat(4)), None);
    }

    #[test]
    fn a_prefix_is_short_and_plain() {
        for refused in ["", "sk-live-", "sk live", "schlüssel_", &"x".repeat(33)] {
            assert!(ApiKeys::new(refused.to_owned()).is_err(), "{refused}");
        }
        let longest = ApiKeys::new("x".repeat(32)).unwrap();
        assert!(longest.recognise(&longest.mint().secret).is_some());
    }

    proptest! {
        #[test]
        fn minted_keys_are_recognised(prefix in "[A-Za-z0-9_]{1,32}") {
            let keys = ApiKeys::new(prefix).unwrap();
            let minted = keys.mint();
            prop_assert_eq!(keys.recognise(&minted.secret), Some(minted.hash));
        }

        #[test]
        fn no_changed_character_is_recognised(at: prop::sample::Index, other: char) {
            let mut characters: Vec<char> = keys().mint().secret.chars().collect();
            let at = at.index(characters.len());
            prop_assume!(characters[at] != other);
            characters[at] = other;
            prop_assert_eq!(keys().recognise(&characters.into_iter().collect::<String>()), None);
        }

        #[test]
        fn no_exchanged_letter_is_recognised(at: prop::sample::Index, other in "[0-9A-Za-z]") {
            let secret = keys().mint().secret;
            let at = at.index(secret.len());
            prop_assume!(secret[at..=at] != other);
            let changed = format!("{}{other}{}", &secret[..at], &secret[at + 1..]);
            prop_assert_eq!(keys().recognise(&changed), None);
        }

        #[test]
        fn random_text_is_not_recognised(text in ".{0,300}", rest in "[0-9A-Za-z]{12}_[0-9A-Za-z]{34}") {
            prop_assert_eq!(keys().recognise(&text), None);
            prop_assert_eq!(keys().recognise(&format!("sk_live_{text}")), None);
            prop_assert_eq!(keys().recognise(&format!("sk_live_{rest}")), None);
        }
    }
}
