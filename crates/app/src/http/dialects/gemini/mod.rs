//! Gemini's dialect: `generateContent` and its streams, embeddings, the count of tokens.

pub mod conversation;
mod framing;
#[cfg(test)]
mod golden;
pub mod native;
pub mod parts;
pub mod request;
pub mod schemas;
pub mod stream;
pub mod whole;
mod words;
