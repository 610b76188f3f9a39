//! Connections: how many there may be, and how long each client may make the service wait.
//!
//! Promise: every wait for a client is bounded, at every request of a connection and not only at its first: for a head
//! (`server.head_timeout_seconds`), between two requests (`server.idle_timeout_seconds`) and for the client to read a
//! response (`server.write_timeout_seconds`). `middleware` bounds the wait for a body. There are never more connections
//! than `server.connections_max` or half of the process's descriptors, so that the database and the providers have
//! theirs: a new connection replaces the one that has waited longest without a request, and where none waits it is
//! answered with 503. One address has `server.connections_per_address` at most. Costs a few cells and one timer a
//! connection, and no lock a request.

mod admission;
mod connection;
mod guarded;
mod waiting;

pub use admission::{ConnectionAdmission, ConnectionLimits, ConnectionRefused};
pub use connection::{BodyLength, ClientConnection, ConnectionTimeouts, RequestInProgress};
pub use guarded::GuardedStream;
pub use waiting::WaitingConnections;
