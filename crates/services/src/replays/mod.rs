//! Replays: a paid call that is asked for again gets the answer of the first, running or kept, and is charged once.
//! `running` is an answer while it is made, which others read along; a `ticket` is the right and the duty to make it; the
//! `service` says who makes a call and who waits for it, over all processes; `unkeyed` does so for the calls of SDKs, which send
//! no key.

mod running;
mod service;
mod ticket;
mod unkeyed;

pub use running::{Heading, Listener};
pub use service::{Asked, ReplayError, ReplayService, ReplaySettings, Standing};
pub use ticket::{Taken, Ticket};
pub use unkeyed::{Stood, Waiting};
