//! Digests: the one way in which bytes are made into a fixed, meaningless value.

use sha2::{Digest, Sha256};

/// SHA-256 of what was sent, so that a second request can be told from the first without keeping its body.
pub fn fingerprint(bytes: &[u8]) -> Vec<u8> {
    fingerprint_of_parts([bytes])
}

/// The fingerprint of these parts joined, without a copy of them.
pub fn fingerprint_of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    parts.into_iter().fold(Sha256::new(), Sha256::chain_update).finalize().to_vec()
}
