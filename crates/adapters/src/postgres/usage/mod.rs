//! Usage on Postgres: what a batch reads and writes. `locks` reads under locks, `records` writes.
//!
//! Costs: every statement is one round trip, whatever the size of the batch, which the service bounds; a batch that touches
//! holds has one more to write them. Locks: the user's row is the caller's to take, where tokens are at stake; holds, then
//! counters, each in the order that was asked for, until the end of the transaction.

mod calls;
mod locks;
mod outcomes;
mod records;
mod repository;
