//! The Product Base service: settings, start-up, HTTP, jobs. The binary in `main.rs` only calls it.
//!
//! Architecture Invariant: no rule of the product is decided here. A handler turns a request into a call of a service,
//! and its outcome into a response.

pub mod assembly;
pub mod cli;
pub mod http;
pub mod jobs;
pub mod operators;
pub mod preparation;
pub mod providers;
pub mod settings;
pub mod startup;
pub mod telemetry;
