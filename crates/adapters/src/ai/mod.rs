//! Providers of models: OpenAI, Claude and Gemini over HTTP, and the sandbox that answers where no key is set.
//!
//! `http_provider` makes one attempt: a `dialect` writes the request and reads the reply, `wire` carries both, `frames` and
//! `members` keep the bytes of others as they came. Nothing here is tried again and nothing is billed.

mod anthropic;
mod dialect;
mod faults;
mod frames;
mod gemini;
mod http_provider;
mod keyless;
mod lenient;
mod members;
mod openai;
mod redaction;
mod reply_headers;
pub mod sandbox;
mod streaming;
pub mod token_counter;
mod wire;

pub use http_provider::{Access, AccessRefused, HttpProvider};
pub use keyless::KeylessProvider;
pub use wire::Timeouts;
