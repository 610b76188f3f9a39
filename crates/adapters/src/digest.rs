//! Digests: the only place that hashes bytes into a fixed-size value.

use sha2::{Digest, Sha256};

/// SHA-256 of a request body, to compare requests without keeping their bodies.
pub fn fingerprint(bytes: &[u8]) -> Vec<u8> {
    fingerprint_of_parts([bytes])
}

/// The fingerprint of the joined parts, without copying them.
pub fn fingerprint_of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    parts.into_iter().fold(Sha256::new(), Sha256::chain_update).finalize().to_vec()
}
