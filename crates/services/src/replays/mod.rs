//! Replays: a paid call that is asked for again gets the answer of the first, running or kept, and is charged once.
//! `running` is an answer while it is made, which others read along; a `ticket` is the right and the duty to make it; the
//! `service` says who makes a call and who waits for it, over all processes.

mod running;
mod service;
mod ticket;

pub use running::{Heading, Listener};
pub use service::{Asked, ReplayError, ReplayService, ReplaySettings, Standing};
pub use ticket::{Taken, Ticket};
