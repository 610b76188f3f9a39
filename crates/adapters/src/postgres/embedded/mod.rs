//! A private Postgres cluster that the program makes, starts and stops by itself.
//!
//! One folder holds one cluster: its files (`postgres/`), the port it listens on (`port`), its passwords
//! (`*.password`), its log (`postgres.log`) and a lock that one program holds at a time (`lock`).
//!
//! Invariants:
//! - the server listens on 127.0.0.1 only, has no unix socket, and asks everybody for a password;
//! - the server is never root, and never in the process group of the program (Ctrl-C reaches the program alone);
//! - every wait is bounded: 60 s to make a cluster, 30 s to start it, 20 s to stop it;
//! - a cluster is made beside its final place and renamed, so that half a cluster is never started.

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
