//! Anthropic's dialect: messages and token counts.

mod dialect;
mod parser;
mod request;

pub(super) use dialect::Anthropic;
