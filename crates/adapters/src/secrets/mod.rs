//! Secrets: tokens, passwords and keys, made and checked. Nothing in here logs a secret or shows one by `Debug`.

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
