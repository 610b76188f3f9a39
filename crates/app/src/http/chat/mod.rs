//! Chat: model calls in our own format, a user's conversations, and their messages.

pub mod calls;
pub mod messages;
pub mod rendering;
pub mod sessions;
