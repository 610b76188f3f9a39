//! Dialects: the APIs of OpenAI, Anthropic and Gemini as endpoints of our gateway, so that an app switches by a base
//! URL and an API key.
//!
//! `endpoints` has the routes. A request is parsed (`<dialect>/request.rs`, sized by `sizing`), its model is found, and
//! it is passed on: unchanged, if the model's provider has the same dialect, otherwise as a conversation
//! (`<dialect>/conversation.rs`; `leniency` for the sandbox in the provider's place). The answer arrives in pieces,
//! which an `AnswerRenderer` renders (`rendering`) and `delivery` sends to the caller. Every refusal is in the dialect
//! (`problems`); `refusals` has the reasons why a call was not made or has no answer.
//!
//! Costs: the body is parsed once, its text is counted once, and a translated one is parsed a second time. An answer
//! that is passed on unchanged is not parsed, except for its first event and the starts and stops of Anthropic's
//! blocks.

pub mod anthropic;
pub mod body;
pub mod calls;
pub mod decoding;
pub mod delivery;
pub mod dialect;
pub mod endpoints;
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
pub mod request_summary;
#[cfg(test)]
mod samples;
pub mod sizing;
