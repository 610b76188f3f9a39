//! A stub of OpenAI, Anthropic and Gemini on a free port of the loopback, which fails on script and writes its own
//! bill.
//!
//! It writes HTTP itself, since a framework would not let a test choose where a chunk ends, when a connection is reset,
//! or that nothing is sent at all. Its response is a function of the request, the model's script and the request's
//! number, without clock or randomness, so a test can predict every byte and every token.
//!
//! A token is a word with the white space before it (`words.rs`). `reply.rs` turns a request into steps, `play.rs` runs
//! them on a connection, and `books.rs` records the requests and their cost.

mod anthropic;
mod ask;
mod bill;
mod books;
mod catalogue;
mod control;
mod fields;
mod gemini;
mod generated;
mod http;
mod openai;
mod play;
mod refusals;
mod reply;
mod script;
mod server;
mod steps;
mod usage;
mod words;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod wire;

pub use ask::UpstreamDialect;
pub use bill::{BillEnding, BillLine, BillTotals};
pub use http::UpstreamRequest;
pub use refusals::{Refusal, RetryAfter, Why};
pub use script::{
    AnswerPace, ChargedPart, Fault, FinishTold, PieceSplit, Script, ScriptedAnswer, ScriptedToolCall, UsageTold,
};
pub use server::{Upstream, UpstreamSettings};
pub use usage::{UpstreamPrices, UsageParts};
pub use words::{count, sentence};
