//! Model providers over HTTP, in the dialects of OpenAI, Anthropic and Gemini, and the sandbox that answers where no API key is set.
//!
//! `http_provider` makes one attempt: a `dialect` writes the request and parses the reply, `wire` carries both.
//! `frames` and `json_patch` keep the provider's and the caller's bytes as they came. Nothing here retries or bills.

mod access;
mod anthropic;
mod dialect;
mod errors;
mod frames;
mod gemini;
mod http_provider;
mod json_patch;
mod lenient;
mod not_configured;
mod openai;
mod redaction;
mod reply_headers;
pub mod sandbox;
mod streaming;
pub mod token_counter;
mod wire;

pub use access::{AccessRefused, AuthRefused, ProviderAccess, ProviderAuth};
pub use http_provider::HttpProvider;
pub use not_configured::KeylessProvider;
pub use wire::ProviderTimeouts;
