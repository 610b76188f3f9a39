//! Replays: which paid calls are stored to be answered again, what a repeat of one gets, and for how long.
//!
//! A call that was charged is never made a second time for the same request: if its response cannot be returned again,
//! a repeat is refused with the reason.

use chrono::TimeDelta;
use thiserror::Error;

use crate::idempotency::IdempotencyKey;
use crate::usage::HoldStatus;

/// The longest body that is stored, in bytes.
pub const KEPT_BODY_MAX: usize = 4 * 1024 * 1024;

/// How long after its end the call of an SDK can be repeated without an idempotency key.
pub const RETRIED_WITHIN: TimeDelta = TimeDelta::minutes(10);

/// The reservation of a call exists at the latest this long after the claim.
const HELD_WITHIN: TimeDelta = TimeDelta::seconds(30);

/// The response is stored, or the claim released, at the latest this long after the end of the reservation.
const WRITTEN_WITHIN: TimeDelta = TimeDelta::seconds(15);

/// How a call may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetryKind {
    /// With an idempotency key of the client: every request with it is the same call.
    Keyed(IdempotencyKey),
    /// From an SDK, which sends no idempotency key. It is a new call, unless it says that it is a retry and a call with
    /// this content exists whose client disconnected without the response.
    OfSdk { is_retry: bool },
}

impl RetryKind {
    /// `None` for a call that cannot be repeated. `retries` is the number of earlier attempts that the SDK reports.
    pub fn of(key: Option<IdempotencyKey>, is_sdk: bool, retries: u32) -> Option<Self> {
        match key {
            Some(key) => Some(Self::Keyed(key)),
            None => is_sdk.then_some(Self::OfSdk { is_retry: retries > 0 }),
        }
    }

    pub const fn is_keyed(&self) -> bool {
        matches!(self, Self::Keyed(_))
    }

    /// Whether an SDK reports that this request is a retry.
    pub const fn is_retry(&self) -> bool {
        matches!(self, Self::OfSdk { is_retry: true })
    }
}

/// Why a call that was made has no response to return again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotReplayable {
    #[error("the call was made, and its answer is lost; it is not made a second time. Send it under another key")]
    Lost,
    #[error(
        "the call was made, and its answer is too long to be kept; it is not made a second time. Send it under another key"
    )]
    TooLong,
}

/// The stored state of a call that has no response yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AwaitedCall {
    /// Since it was claimed.
    pub age: TimeDelta,
    /// The status of its reservation and for how long it has had it; `None` if nothing is reserved yet.
    pub hold: Option<(HoldStatus, TimeDelta)>,
}

/// What may be done about the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AwaitedState {
    UnderWay,
    /// Nothing was charged, and the process that made it is gone: the call may be made again.
    Vacant,
    /// It was charged or may still be, and its response is lost.
    Lost,
}

impl AwaitedCall {
    /// A pending reservation means that the call is in progress: without its process it is not renewed and is swept.
    pub fn state(self) -> AwaitedState {
        let Some((status, since)) = self.hold else {
            return if self.age > HELD_WITHIN { AwaitedState::Lost } else { AwaitedState::UnderWay };
        };
        match status {
            HoldStatus::Pending => AwaitedState::UnderWay,
            _ if since <= WRITTEN_WITHIN => AwaitedState::UnderWay,
            HoldStatus::Released => AwaitedState::Vacant,
            // An expired reservation can still be settled.
            HoldStatus::Settled | HoldStatus::Expired => AwaitedState::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_goes_before_what_the_sdk_says_and_others_are_not_kept() {
        let key = IdempotencyKey::parse("k").unwrap();
        assert_eq!(RetryKind::of(Some(key.clone()), true, 2), Some(RetryKind::Keyed(key.clone())));
        assert_eq!(RetryKind::of(Some(key), false, 0).map(|repeat| repeat.is_retry()), Some(false));
        assert_eq!(RetryKind::of(None, true, 1).map(|repeat| repeat.is_retry()), Some(true));
        assert_eq!(RetryKind::of(None, true, 0), Some(RetryKind::OfSdk { is_retry: false }));
        assert_eq!(RetryKind::of(None, true, 1), Some(RetryKind::OfSdk { is_retry: true }));
        assert_eq!(RetryKind::of(None, false, 0), None);
    }

    #[test]
    fn what_is_awaited_is_lost_vacant_or_under_way() {
        use HoldStatus::{Expired, Pending, Released, Settled};
        let seconds = TimeDelta::seconds;
        for (age, hold, state) in [
            (0, None, AwaitedState::UnderWay),
            (31, None, AwaitedState::Lost),
            (599, Some((Pending, 1)), AwaitedState::UnderWay),
            (9_999, Some((Pending, 1)), AwaitedState::UnderWay),
            (60, Some((Settled, 14)), AwaitedState::UnderWay),
            (60, Some((Settled, 16)), AwaitedState::Lost),
            (60, Some((Expired, 16)), AwaitedState::Lost),
            (60, Some((Released, 14)), AwaitedState::UnderWay),
            (60, Some((Released, 16)), AwaitedState::Vacant),
        ] {
            let awaited = AwaitedCall { age: seconds(age), hold: hold.map(|(status, since)| (status, seconds(since))) };
            assert_eq!(awaited.state(), state, "{awaited:?}");
        }
    }
}
