//! A stub of OpenAI, Anthropic and Gemini on a free port of the loopback, which misbehaves on script and writes its own bill.
//!
//! It writes the bytes of HTTP itself, since a framework would not let a test choose where a chunk ends, when a
//! connection is reset, or that nothing comes at all. What it answers is a function of the request, the model's script
//! and the request's number: no clock and no dice, so a test can predict every byte and every token.
//!
//! A token is a word with the white space before it (`words.rs`). `reply.rs` turns a request into steps, `play.rs` takes
//! them on a connection, and `books.rs` remembers what came in and what it costs.

mod anthropic;
mod ask;
mod bill;
mod books;
mod catalogue;
mod control;
mod fields;
mod gemini;
mod http;
mod openai;
mod play;
mod refusals;
mod reply;
mod script;
mod server;
mod spoken;
mod steps;
mod usage;
mod words;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod wire;

pub use ask::Dialect;
pub use bill::{BillLine, Ending, Totals};
pub use http::Request;
pub use refusals::{Refusal, RetryAfter, Why};
pub use script::{Answer, Charges, Fault, Finish, Pace, Script, Split, ToolCall, UsageTold};
pub use server::{Settings, Upstream};
pub use usage::{Parts, Prices};
pub use words::{count, sentence};
