//! Usage on Postgres: the reads and writes of a batch. `locks` reads under locks, `writes` writes.
//!
//! Costs: every statement is one round trip, whatever the size of the batch, which the service bounds; a batch with
//! reservations has one more to write them. Locks: where tokens are spent, the caller locks the user's row;
//! reservations, then counters, each in the requested order, until the end of the transaction.

mod calls;
mod locks;
mod repository;
mod stored_decisions;
mod writes;
