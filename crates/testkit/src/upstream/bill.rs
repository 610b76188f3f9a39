//! The lines of the stub's own bill.

use super::ask::Dialect;
use super::usage::Parts;

/// What one request costs by the stub's own count, whatever its answer told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BillLine {
    /// The request's. The ids in an answer end in it: `req_stub7`, `msg_stub7`.
    pub number: u64,
    /// `None` where no dialect is spoken: the totals.
    pub dialect: Option<Dialect>,
    pub model: String,
    pub is_stream: bool,
    /// The answer's, or 0 where none was sent.
    pub status: u16,
    /// What is charged by now.
    pub usage: Parts,
    pub nano_dollars: u64,
    /// The tier that the script names.
    pub tier: Option<String>,
    pub ending: Ending,
    /// Bytes of the body that were handed to the client's socket.
    pub delivered: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The answer is under way.
    Answering,
    /// All of it was written, and the client was there to the last byte of it.
    Finished,
    /// The client was gone before the last byte. Whoever closes only its sending side counts as gone too.
    ClientLeft,
    /// The script broke it off, and the client was there.
    BrokenOff,
}

/// The sums over every line since the start or the last `clear`, those that are no longer kept included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub requests: u64,
    pub usage: Parts,
    pub nano_dollars: u64,
    pub finished: u64,
    pub clients_left: u64,
    pub broken_off: u64,
    /// Answers under way, and the most there were at once.
    pub answering: u64,
    pub answering_at_most: u64,
}
