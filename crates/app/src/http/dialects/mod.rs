//! Dialects: the APIs of OpenAI, Anthropic and Gemini as doors of our gateway, so that an app switches by a base URL and a
//! key.
//!
//! `doors` has the routes. A request is read (`<dialect>/request.rs`, sized by `sizing`), its model is found, and it goes
//! on: as it came, if the model's provider speaks the dialect itself, else as a conversation
//! (`<dialect>/conversation.rs`; for the sandbox in the provider's place `leniency`). The answer comes back in pieces, which a `Renderer` writes (`rendering`), and
//! `delivery` carries to the caller. Every refusal is in the dialect (`problems`); why a call came to nothing is told in
//! `refusals`.
//!
//! Costs: the body is parsed once, its text is counted once, and a translated one is parsed a second time. An answer
//! that passes as it is is not looked into, but for its first event.

pub mod anthropic;
pub mod asked;
pub mod body;
pub mod calls;
pub mod decoding;
pub mod delivery;
pub mod dialect;
pub mod doors;
mod fallbacks;
pub mod gemini;
pub mod leniency;
pub mod models;
pub mod openai;
pub mod paging;
pub mod problems;
pub mod provider_headers;
pub mod reading;
pub mod refusals;
pub mod rendering;
#[cfg(test)]
mod samples;
pub mod sizing;
