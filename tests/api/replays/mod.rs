//! Repeated paid calls: each repeat gets the same bytes and one charge, by the stub's bill and by ours.

mod keys;
mod processes;
mod rights;
mod sdks;
mod stage;
