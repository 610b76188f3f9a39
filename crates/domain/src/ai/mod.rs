//! AI: the pure part of a model call: which provider a model has, what the call used, and how each provider reports it.
//!
//! Providers count differently. Each report becomes one `CallUsage` of parts that do not overlap, so that each part has
//! its price and their sum is the provider's own total.

mod breaker;
mod claude;
mod conversation;
mod delivery;
mod gemini;
mod input;
mod models;
mod openai;
mod providers;
mod reports;
mod told;
mod usage;

pub use breaker::{Admission, AttemptOutcome, Breaker, BreakerRules, BreakerState};
pub use claude::ClaudeUsage;
pub use conversation::{
    AnswerDelta, Conversation, ConversationTurn, FinishReason, MessagePart, Speaker, ToolAnswer, ToolCall, ToolChoice,
    ToolDefinition,
};
pub use delivery::{Delivery, unseen_output};
pub use gemini::GeminiUsage;
pub use input::{BYTES_A_TOKEN, BYTES_A_TOKEN_HELD, InputSize};
pub use models::{CLAUDE_OUTPUT_UNASKED, ModelId, ModelRefused};
pub use openai::OpenAiUsage;
pub use providers::{
    Dialect, MissingFeatures, ProviderId, ProviderProfile, ProviderProfiles, ProviderRefused, UnknownDialect,
    UnknownFeature,
};
pub use reports::{ReportedUsage, UsageReading};
pub use usage::{
    CallUsage, Geo, GeoRefused, TOKENS_MAX, Tier, TokenUsage, ToolCalls, UnknownSource, UnknownTier, UsageSource,
};
