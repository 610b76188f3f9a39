//! Identity: the built-in accounts (`accounts`), the first administrator (`first_admin`), and who a caller is
//! (`callers`).

pub mod accounts;
pub mod callers;
pub mod first_admin;
pub mod own_account;
pub mod second_factors;
