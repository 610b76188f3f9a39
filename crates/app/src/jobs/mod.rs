//! Jobs: what the service does by itself, every few seconds or hours (`sweeps`), and how that is run (`running`).
//!
//! Architecture Invariant: several processes run the same jobs at once, so every job is harmless in parallel.

mod running;
mod sweeps;

pub use running::{Jobs, JobsContext};
