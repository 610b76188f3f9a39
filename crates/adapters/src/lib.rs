//! Adapters: Postgres, cryptography, the clock and randomness, behind the traits of `ports`.
//!
//! Architecture Invariant: `sea-orm` and `sqlx` are named in `postgres` only, cryptography in `secrets` and where
//! a stored answer is sealed; no rule of the product is decided here.

mod addresses;
pub mod ai;
pub mod clock;
pub mod digest;
pub mod json_repair;
pub mod memory;
pub mod postgres;
pub mod randomness;
pub mod secrets;
