//! Model calls through our own route, against a stub of the providers that keeps its own bill.

mod another_provider;
mod answers;
mod growing;
mod input;
mod keys;
mod leaving;
mod limits;
mod lineages;
mod locked_rows;
mod money;
mod providers;
mod sessions;
mod stage;
