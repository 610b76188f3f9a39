//! Secrets: mints and verifies tokens, passwords and keys. Nothing here logs a secret or shows one in `Debug`.

pub mod access_tokens;
pub mod api_keys;
mod base62;
mod claims;
mod jwks;
pub mod opaque;
pub mod passwords;
pub mod refresh_tokens;
pub mod supabase;
#[cfg(test)]
mod testing;
pub mod totp;
pub mod verified;
