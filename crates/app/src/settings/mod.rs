//! Settings: their types (`shape`) and their sources (`load`, `models`). `config/base.toml` documents every key,
//! `config/models.toml` every model.

pub mod load;
pub mod models;
mod production;
pub mod providers;
pub mod shape;
