//! The torture of metering: many clients use, hold, settle and release by every door, while processes, the pooler and
//! the database are killed under them. Each client keeps a journal of what it sent and what it was told. In the end the
//! books are held against the journals (`audit`): every acknowledged use is there once, nothing is there twice or unasked,
//! no limit was broken at any moment that was sampled, and the balances are right.
//!
//! `make test` runs it in a short form, in which everything breaks once; `make torture` for as long as it is told.

mod audit;
mod books;
mod chances;
mod client;
mod cooked;
mod demands;
mod doors;
mod faults;
mod form;
mod ground;
mod hearing;
mod holds;
mod in_sql;
mod journal;
mod people;
mod run;
mod sampler;
mod stage;
