//! AI: calls to models, held before they are sent and settled exactly once.

pub mod answers;
pub mod attempts;
mod breakers;
pub mod calls;
pub mod errors;
mod service;

pub use service::{AiService, Quote};
