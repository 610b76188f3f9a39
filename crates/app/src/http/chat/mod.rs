//! Chat: calls of models in our own words, the conversations that a user keeps, and what was said in them.

pub mod calls;
pub mod messages;
pub mod rendering;
pub mod sessions;
