//! The lines of the stub's own bill.

use super::ask::UpstreamDialect;
use super::usage::UsageParts;

/// What one request costs by the stub's own count, whatever usage the response reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BillLine {
    /// The number of the request. The ids in a response end with it: `req_stub7`, `msg_stub7`.
    pub number: u64,
    /// `None` where the request has no dialect.
    pub dialect: Option<UpstreamDialect>,
    pub model: String,
    pub is_stream: bool,
    /// The response's status, or 0 where none was sent.
    pub status: u16,
    /// The usage charged so far.
    pub usage: UsageParts,
    pub nano_dollars: u64,
    /// The tier in the script.
    pub tier: Option<String>,
    pub ending: BillEnding,
    /// The number of body bytes written to the client's socket.
    pub delivered: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BillEnding {
    /// The response is in progress.
    Answering,
    /// All of it was written, and the client stayed to the last byte.
    Finished,
    /// The client left before the last byte. Closing only its sending side counts as leaving too.
    ClientLeft,
    /// The script broke it off while the client was connected.
    BrokenOff,
}

/// The sums over every line since the start or the last `clear`, including lines no longer kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BillTotals {
    pub requests: u64,
    pub usage: UsageParts,
    pub nano_dollars: u64,
    pub finished: u64,
    pub clients_left: u64,
    pub broken_off: u64,
    /// Responses in progress, and the most at one time.
    pub answering: u64,
    pub answering_at_most: u64,
}
