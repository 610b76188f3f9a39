//! Chat: the conversations that a user keeps, and what was said in them.

pub mod messages;
pub mod sessions;
