//! The providers' own dialects over HTTP.

pub mod asking;
mod calls;
mod doors;
mod models;
mod refusals;
mod upstream;
