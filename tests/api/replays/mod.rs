//! Paid calls that are asked for again: answered with the same bytes, and charged once, by the stub's own bill and ours.

mod keys;
mod processes;
mod rights;
mod sdks;
mod stage;
