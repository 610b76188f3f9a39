//! Gemini's dialect: `generateContent` and its streams, embeddings, the counting of tokens.

pub mod conversation;
#[cfg(test)]
mod golden;
mod framing;
pub mod native;
pub mod request;
mod schemas;
pub mod stream;
pub mod whole;
mod words;
