//! The providers' own dialects over HTTP.

mod asking;
mod doors;
mod models;
mod refusals;
