//! Settings: their shape (`shape`) and where they come from (`load`). `config/base.toml` documents every key.

pub mod load;
pub mod shape;
