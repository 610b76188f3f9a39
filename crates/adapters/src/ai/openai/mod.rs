//! OpenAI's dialect: chat completions and embeddings.

mod dialect;
mod request;
mod speech;

pub(super) use dialect::OpenAi;
