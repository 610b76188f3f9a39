//! The providers' own dialects over HTTP.

pub mod asking;
mod calls;
mod doors;
mod fallbacks;
mod health;
mod models;
mod refusals;
mod silence;
mod upstream;
