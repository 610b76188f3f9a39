//! The sandbox: answers in a provider's place where no key is set, so that everything can be tried offline.
//!
//! What it says follows from what it is asked; it asks nobody and sleeps never. Its usage is counted in truth and told
//! in the form of the provider whose model was asked for, so that it takes the same way as any other.

mod answering;
mod embeddings;
mod provider;

pub use provider::SandboxProvider;
