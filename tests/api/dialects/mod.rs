//! The providers' own dialects over HTTP.

mod asking;
mod calls;
mod doors;
mod models;
mod refusals;
mod upstream;
