//! Idempotency: a request that is repeated with the same idempotency key gets the first response again.

use thiserror::Error;
use uuid::Uuid;

/// The longest idempotency key, in characters; the database checks it too.
pub const KEY_MAX_LENGTH: usize = 255;

/// The idempotency key that a client chose for one request. Visible ASCII: the same in a header and in a body.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IdempotencyKeyRefused {
    #[error("an idempotency key must not be empty")]
    Empty,
    #[error("an idempotency key has at most 255 characters")]
    TooLong,
    #[error("an idempotency key is made of visible ASCII characters")]
    NotVisible,
}

impl IdempotencyKey {
    pub fn parse(text: &str) -> Result<Self, IdempotencyKeyRefused> {
        if text.is_empty() {
            return Err(IdempotencyKeyRefused::Empty);
        }
        if text.len() > KEY_MAX_LENGTH {
            return Err(IdempotencyKeyRefused::TooLong);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            return Err(IdempotencyKeyRefused::NotVisible);
        }
        Ok(Self(text.to_owned()))
    }

    /// For a request without an idempotency key: an id is visible ASCII.
    pub fn of_id(id: Uuid) -> Self {
        Self(id.to_string())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// An idempotency key may give access to a stored response with a secret in it, so it is not logged.
impl std::fmt::Debug for IdempotencyKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("IdempotencyKey(..)")
    }
}

/// A response as it was sent, stored so that it can be returned byte for byte.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    pub status: u16,
    pub content_type: String,
    pub body: Vec<u8>,
}

impl std::fmt::Debug for StoredAnswer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "StoredAnswer({}, {} bytes)", self.status, self.body.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_visible_ascii_within_its_bound() {
        assert!(IdempotencyKey::parse(&"k".repeat(KEY_MAX_LENGTH)).is_ok());
        assert_eq!(IdempotencyKey::parse(&"k".repeat(KEY_MAX_LENGTH + 1)), Err(IdempotencyKeyRefused::TooLong));
        assert_eq!(IdempotencyKey::parse(""), Err(IdempotencyKeyRefused::Empty));
        assert_eq!(IdempotencyKey::parse("a\u{0}b"), Err(IdempotencyKeyRefused::NotVisible));
        assert_eq!(IdempotencyKey::parse("鍵"), Err(IdempotencyKeyRefused::NotVisible));
    }
}
