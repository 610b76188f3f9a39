//! AI: what is pure about a call to a model: whose model it is, what the call used, and how each provider tells it.
//!
//! The providers count differently. What each of them sends becomes one `CallUsage` of parts that overlap nowhere, so
//! that a price is told for each part and their sum is the provider's own total.

mod breaker;
mod claude;
mod conversation;
mod delivery;
mod gemini;
mod input;
mod models;
mod openai;
mod reports;
mod told;
mod usage;

pub use breaker::{Admission, AttemptOutcome, Breaker, BreakerRules, BreakerState};
pub use claude::ClaudeUsage;
pub use conversation::{
    Conversation, Delta, FinishReason, Part, Speaker, Tool, ToolAnswer, ToolCall, ToolChoice, Turn,
};
pub use delivery::{Delivery, unseen_output};
pub use gemini::GeminiUsage;
pub use input::{BYTES_A_TOKEN, BYTES_A_TOKEN_HELD, InputSize};
pub use models::{CLAUDE_OUTPUT_UNASKED, ModelId, ModelRefused, Provider, UnknownProvider};
pub use openai::OpenAiUsage;
pub use reports::{ReportedUsage, UsageReading};
pub use usage::{
    CallUsage, Geo, GeoRefused, TOKENS_MAX, Tier, TokenUsage, ToolCalls, UnknownSource, UnknownTier, UsageSource,
};
