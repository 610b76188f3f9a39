//! The torture test of metering: many clients consume, reserve, settle and release through every endpoint, while the
//! processes, the pooler and the database are killed. Each client keeps a journal of its requests and the responses. At
//! the end the audit compares the books with the journals (`audit`): every acknowledged use exists once, nothing exists
//! twice or without a request, no sample shows a limit exceeded, and the balances are right.
//!
//! `make test` runs its short form, in which each fault occurs once; `make torture` runs as long as it is configured.

mod audit;
mod books;
mod chances;
mod client;
mod demands;
mod doors;
mod faults;
mod form;
mod ground;
mod holds;
mod in_sql;
mod journal;
mod journal_client;
mod people;
mod run;
mod sampler;
mod stage;
mod tampered_books;
