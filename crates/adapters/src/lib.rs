//! Adapters: Postgres, cryptography, the clock and randomness, behind the traits of `ports`.
//!
//! Architecture Invariant: `sea-orm` and `sqlx` are used in `postgres` only, cryptography in `secrets` and where a
//! stored response is sealed. No product rule is decided here.

mod addresses;
pub mod ai;
pub mod cache;
pub mod clock;
pub mod digest;
pub mod json_repair;
pub mod postgres;
pub mod randomness;
pub mod secrets;
