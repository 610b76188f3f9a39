//! Usage on Postgres: the reads and writes of a batch. One file a
//! subject, beside the columns and the stored decisions that they share.
//!
//! Costs: every statement is one round trip, whatever the size of the batch, which the service bounds; a batch with
//! reservations has one more to write them. Locks: where tokens are spent, the caller locks the user's row;
//! reservations, then counters, each in the requested order, until the end of the transaction.

mod api_key_usage;
mod call_log;
mod columns;
mod counters;
mod reservations;
mod stored_decisions;
