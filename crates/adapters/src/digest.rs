//! Digests: the one way in which bytes are made into a fixed, meaningless value.

use sha2::{Digest, Sha256};

/// SHA-256 of what was sent, so that a second request can be told from the first without keeping its body.
pub fn fingerprint(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}
