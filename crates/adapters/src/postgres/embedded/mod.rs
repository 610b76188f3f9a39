//! A private Postgres cluster that the program creates, starts and stops.
//!
//! One folder contains one cluster: its files (`postgres/`), its port (`port`), its passwords (`*.password`), its log
//! (`postgres.log`) and a lock for one program at a time (`lock`).
//!
//! Invariants:
//! - the server listens on 127.0.0.1 only, has no unix socket, and asks every client for a password;
//! - the server never runs as root, and never in the process group of the program (Ctrl-C reaches the program alone);
//! - every wait is bounded: 60 s to create a cluster, 30 s to start it, 20 s to stop it;
//! - a cluster is created beside its final place and renamed, so that half a cluster is never started.

mod account;
mod cluster;
mod error;
mod files;
mod home;
mod log;
mod pid_file;
mod port;
mod probe;
mod programs;
mod running;
mod schema_owner;
mod server;
mod settings;

pub use error::EmbeddedError;
pub use files::write_private;
pub use running::EmbeddedPostgres;
pub use settings::{EmbeddedSettings, place_for_ephemeral};
