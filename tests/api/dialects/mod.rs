//! The providers' own dialects over HTTP.

mod asking;
mod calls;
mod doors;
mod lenient;
mod models;
mod passing;
mod refusals;
mod upstream;
