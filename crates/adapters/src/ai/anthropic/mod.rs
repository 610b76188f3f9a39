//! Anthropic's dialect: messages and their count.

mod dialect;
mod request;
mod speech;

pub(super) use dialect::Anthropic;
