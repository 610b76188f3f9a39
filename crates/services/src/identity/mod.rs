//! Identity: the built-in accounts (`accounts`), and who a caller is (`callers`).

pub mod accounts;
pub mod callers;
