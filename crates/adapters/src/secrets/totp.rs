//! The secrets of second factors: minted, sealed for the database, and used to check codes (RFC 6238, HMAC-SHA-1, 6
//! digits).
//!
//! Promises: the database alone reveals no secret. The sealing key is derived from the signing key for this purpose
//! only, and a sealed secret opens for its own user only. Another signing key opens none: users with a second factor
//! then need an operator (docs/OPERATIONS.md). A code costs an HMAC.

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use domain::identity::totp::{CODE_DIGITS, RECOVERY_CODES};
use domain::users::UserId;
use hmac::{Hmac, KeyInit as _, Mac};
use ports::identity::{NewTotpSecret, SecretError, TotpSecrets};
use rand::RngExt;
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// The purpose of the derived key: the signing key itself signs access tokens.
const PURPOSE: &[u8] = b"product-base: secrets of second factors";

/// As long as the hash (RFC 4226, section 4).
const SECRET_LENGTH: usize = 20;
const NONCE_LENGTH: usize = 12;

/// RFC 4648; recovery codes use it in lower case.
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// 16 characters have 80 bits.
const RECOVERY_BYTES: usize = 10;

pub struct SealedTotp {
    cipher: ChaCha20Poly1305,
}

impl SealedTotp {
    pub fn new(signing_key: &[u8]) -> Result<Self, SecretError> {
        let mut derivation = Hmac::<Sha256>::new_from_slice(signing_key)
            .map_err(|_| SecretError("the signing key cannot be used for second factors".to_owned()))?;
        derivation.update(PURPOSE);
        let key: [u8; 32] = derivation.finalize().into_bytes().into();
        Ok(Self { cipher: ChaCha20Poly1305::new(&Key::from(key)) })
    }

    fn open(&self, user_id: UserId, sealed: &[u8]) -> Result<Vec<u8>, SecretError> {
        let unreadable = || SecretError("a second factor was sealed under another signing key".to_owned());
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LENGTH>().ok_or_else(unreadable)?;
        let payload = Payload { msg: sealed, aad: user_id.0.as_bytes() };
        self.cipher.decrypt(&Nonce::from(*nonce), payload).map_err(|_| unreadable())
    }
}

impl TotpSecrets for SealedTotp {
    fn mint(&self, user_id: UserId) -> Result<NewTotpSecret, SecretError> {
        let secret = rand::rng().random::<[u8; SECRET_LENGTH]>();
        let nonce = rand::rng().random::<[u8; NONCE_LENGTH]>();
        let sealed = self
            .cipher
            .encrypt(&Nonce::from(nonce), Payload { msg: &secret, aad: user_id.0.as_bytes() })
            .map_err(|_| SecretError("a second factor could not be sealed".to_owned()))?;
        Ok(NewTotpSecret { secret: base32(&secret), sealed: [nonce.as_slice(), &sealed].concat() })
    }

    fn matching_step(
        &self,
        user_id: UserId,
        sealed: &[u8],
        code: &str,
        steps: &[i64],
    ) -> Result<Option<i64>, SecretError> {
        let secret = self.open(user_id, sealed)?;
        // Every step is checked, so that the time reveals nothing.
        let mut found = None;
        for step in steps {
            if code_at(&secret, *step)?.as_bytes().ct_eq(code.as_bytes()).into() {
                found = found.or(Some(*step));
            }
        }
        Ok(found)
    }

    fn mint_recovery_codes(&self) -> Vec<String> {
        let code = |()| base32(&rand::rng().random::<[u8; RECOVERY_BYTES]>()).to_ascii_lowercase();
        std::iter::repeat_n((), RECOVERY_CODES).map(code).collect()
    }
}

/// RFC 4226, section 5.3, with the step number as the counter.
fn code_at(secret: &[u8], step: i64) -> Result<String, SecretError> {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret).map_err(|error| SecretError(error.to_string()))?;
    mac.update(&step.to_be_bytes());
    let hash = mac.finalize().into_bytes();
    let offset = usize::from(hash.last().copied().unwrap_or_default() & 0xF);
    let word = hash.get(offset..).and_then(|rest| rest.first_chunk::<4>()).copied().unwrap_or_default();
    let number = (u32::from_be_bytes(word) & 0x7FFF_FFFF) % 10_u32.pow(6);
    Ok(format!("{number:0CODE_DIGITS$}"))
}

/// RFC 4648 without padding.
fn base32(bytes: &[u8]) -> String {
    let bit = |place: usize| bytes.get(place / 8).is_some_and(|byte| byte >> (7 - place % 8) & 1 == 1);
    let digits = (bytes.len() * 8).div_ceil(5);
    let value = |digit: usize| (0..5).fold(0, |value, place| value << 1 | usize::from(bit(digit * 5 + place)));
    (0..digits).filter_map(|digit| BASE32.get(value(digit))).map(|byte| char::from(*byte)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use uuid::Uuid;

    use super::*;

    /// RFC 6238, appendix B, for SHA-1; its eight digits end in our six.
    #[test]
    fn the_codes_of_the_standard_come_out() {
        for (seconds, code) in [
            (59_i64, "94287082"),
            (1_111_111_109, "07081804"),
            (1_111_111_111, "14050471"),
            (1_234_567_890, "89005924"),
            (2_000_000_000, "69279037"),
            (20_000_000_000, "65353130"),
        ] {
            assert_eq!(code_at(b"12345678901234567890", seconds / 30).unwrap(), code[2..], "{seconds}");
        }
    }

    /// RFC 4648, section 10.
    #[test]
    fn base32_is_the_standards() {
        for (text, digits) in [("", ""), ("f", "MY"), ("fo", "MZXQ"), ("foo", "MZXW6"), ("foobar", "MZXW6YTBOI")] {
            assert_eq!(base32(text.as_bytes()), digits);
        }
    }

    #[test]
    fn a_sealed_secret_opens_for_its_user_and_under_its_key_alone() {
        let (ann, bob) = (UserId(Uuid::from_u128(1)), UserId(Uuid::from_u128(2)));
        let here = SealedTotp::new(b"a signing key").unwrap();
        let made = here.mint(ann).unwrap();
        assert_eq!(made.secret.len(), 32);
        let secret = here.open(ann, &made.sealed).unwrap();
        assert!(base32(&secret) == made.secret && !made.sealed.windows(SECRET_LENGTH).any(|part| part == secret));
        let code = code_at(&secret, 7).unwrap();
        assert_eq!(here.matching_step(ann, &made.sealed, &code, &[8, 7, 6]).unwrap(), Some(7));
        assert_eq!(here.matching_step(ann, &made.sealed, &code[1..], &[7]).unwrap(), None);
        assert!(here.matching_step(bob, &made.sealed, &code, &[7]).is_err());
        assert!(SealedTotp::new(b"another").unwrap().matching_step(ann, &made.sealed, &code, &[7]).is_err());
        assert!(here.open(ann, b"short").is_err());
    }

    #[test]
    fn recovery_codes_are_ten_and_never_repeat() {
        let sealing = SealedTotp::new(b"a signing key").unwrap();
        let codes: BTreeSet<String> = (0..20).flat_map(|_| sealing.mint_recovery_codes()).collect();
        assert_eq!(codes.len(), 200);
        assert!(codes.iter().all(|code| code.len() == 16));
    }
}
