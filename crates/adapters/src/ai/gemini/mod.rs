//! Gemini's dialect: `generateContent` and its streams, embeddings and token counts.

mod dialect;
mod parser;
mod request;

pub(super) use dialect::Gemini;
