//! Gemini's dialect: `generateContent` and its streams, embeddings, the count of tokens.

mod dialect;
mod request;
mod speech;

pub(super) use dialect::Gemini;
