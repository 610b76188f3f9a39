//! Anthropic's dialect: messages, and the count of their tokens.

pub mod conversation;
#[cfg(test)]
mod golden;
pub mod native;
pub mod parts;
pub mod request;
pub mod stream;
pub mod whole;
mod words;
