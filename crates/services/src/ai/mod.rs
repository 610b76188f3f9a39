//! AI: calls to models. The most that a call can use is reserved before it is sent, and the reservation is settled
//! exactly once. `chat` prepares the calls of our own route. `service` resolves the model and reserves within the
//! `estimates` of what the call can use. `attempts` sends the call. `call_task` follows the answer and `settling` books
//! it. `sweep` settles the calls whose process is gone.

pub mod answers;
mod asker;
pub mod attempts;
mod breakers;
mod call_task;
pub mod calls;
pub mod chat;
pub mod errors;
mod estimates;
pub mod fallbacks;
mod holding;
mod registry;
mod service;
mod settling;
mod sweep;

pub use service::{AiCallSettings, AiParts, AiService, CallQuote, StreamPace};
