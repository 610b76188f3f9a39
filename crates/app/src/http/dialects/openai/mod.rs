//! `OpenAI`'s dialect: chat completions and embeddings.

pub mod conversation;
#[cfg(test)]
mod golden;
pub mod native;
pub mod parts;
pub mod request;
pub mod stream;
pub mod whole;
mod words;
