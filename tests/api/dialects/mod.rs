//! The providers' dialects over HTTP.

pub mod asking;
mod calls;
mod doors;
mod fallbacks;
mod health;
mod lenient;
mod models;
mod passing;
mod refusals;
mod silence;
mod upstream;
