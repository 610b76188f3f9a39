//! Replays: a paid call that is requested again gets the answer of the first, while it runs or from storage, and is
//! charged once. `running` is an answer while it is made, which others can read too. A `CallClaim` is the right and the
//! duty to make the call. The `service` decides which request makes a call and which ones wait for it, over all
//! processes. `unkeyed` does so for the calls of SDKs, which send no idempotency key.

mod claim;
mod running;
mod service;
mod unkeyed;

pub use claim::{CallClaim, ClaimTaken};
pub use running::{AnswerHeading, AnswerListener};
pub use service::{ClaimState, ReplayError, ReplayRequest, ReplayService, ReplaySettings};
pub use unkeyed::{RetryPlace, WaitingRetry};
