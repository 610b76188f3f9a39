//! Jobs: recurring work of the service, every few seconds or hours (`sweeps`), and how it is run (`running`).
//!
//! Architecture Invariant: several processes run the same jobs at once, so every job is harmless in parallel.

mod running;
mod sweeps;

pub use running::{JobsContext, RunningJobs};
