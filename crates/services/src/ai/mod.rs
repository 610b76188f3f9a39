//! AI: calls to models, held before they are sent and settled exactly once. `chat` prepares those of our own route; `service` finds the model and holds, within the
//! `bounds` of what the call can use; `attempts` sends it; its `course` follows the answer and `settling` books it; the
//! `sweep` settles what nobody speaks for any more.

pub mod answers;
mod asker;
pub mod attempts;
mod bounds;
mod breakers;
pub mod calls;
pub mod chat;
mod course;
pub mod errors;
pub mod fallbacks;
mod holding;
mod registry;
mod service;
mod settling;
mod sweep;

pub use service::{AiParts, AiService, AiSettings, Quote, StreamPace};
