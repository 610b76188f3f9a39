//! The sandbox: answers in place of a provider without an API key, so that everything can be tried offline.
//!
//! Its answer depends on the input alone; it makes no network calls and never sleeps. It counts its usage with the
//! token counter and reports it in the form of the replaced provider, so that it takes the same path as any other
//! usage.

mod answering;
mod embeddings;
mod provider;

pub use provider::SandboxProvider;
