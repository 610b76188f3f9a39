//! OpenAI's dialect: chat completions and embeddings.

mod dialect;
mod parser;
mod request;

pub(super) use dialect::OpenAi;
