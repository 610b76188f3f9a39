//! Connections: how many there may be, and how long each may make us wait.
//!
//! Promise: every wait for a client has its bound, at every request of a connection and not only at its first: a head
//! (`server.head_timeout_seconds`), the pause between two requests (`server.idle_timeout_seconds`), the reading of an answer
//! (`server.write_timeout_seconds`). A body is bounded by `finish`. There are never more connections than
//! `server.connections_max` or half of the process's descriptors, so that the database and the providers have theirs: a new
//! connection takes the place of the one that has waited longest without a request, and where none waits it is answered
//! with 503. One address has `server.connections_per_address` at most. Costs a few cells and one timer a connection, no lock
//! a request.

mod admission;
mod connection;
mod guarded;
mod waiting;

pub use admission::{Admission, Bounds, Refused};
pub use connection::{BodyLength, Connection, RequestInProgress, Timeouts};
pub use guarded::Guarded;
pub use waiting::Waiting;
