//! Replays: which paid calls are kept to be answered again, what a repeat of one gets, and for how long.
//!
//! A call that was charged once is never made a second time for the same asking: where its answer cannot be given again,
//! a repeat is told so.

use chrono::TimeDelta;
use thiserror::Error;

use crate::idempotency::IdempotencyKey;
use crate::usage::HoldStatus;

/// The longest body that is kept, in bytes.
pub const KEPT_BODY_MAX: usize = 4 * 1024 * 1024;

/// How long after its end the call of an SDK can be asked for again without a key.
pub const RETRIED_WITHIN: TimeDelta = TimeDelta::minutes(10);

/// How long after the claim the hold of a call is there at the latest.
const HELD_WITHIN: TimeDelta = TimeDelta::seconds(30);

/// How long after the end of a hold the answer is written down at the latest, or its place given back.
const WRITTEN_WITHIN: TimeDelta = TimeDelta::seconds(15);

/// How a call may come again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Under a key of the client's: whatever is sent under it is the same call.
    Keyed(IdempotencyKey),
    /// From an SDK, which sends no key. It is a call of its own, unless it says that it is a retry and finds a call with
    /// this content whose client has left without the answer.
    OfSdk { is_retry: bool },
}

impl Repeat {
    /// `None` for a call that nobody asks for again. `retries` is what the SDK says how often it tried before.
    pub fn of(key: Option<IdempotencyKey>, is_sdk: bool, retries: u32) -> Option<Self> {
        match key {
            Some(key) => Some(Self::Keyed(key)),
            None => is_sdk.then_some(Self::OfSdk { is_retry: retries > 0 }),
        }
    }

    pub const fn is_keyed(&self) -> bool {
        matches!(self, Self::Keyed(_))
    }

    /// Whether an SDK says that it sends its request once more.
    pub const fn is_retry(&self) -> bool {
        matches!(self, Self::OfSdk { is_retry: true })
    }
}

/// Why a call that was made has no answer to be given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unkept {
    #[error("the call was made, and its answer is lost; it is not made a second time. Send it under another key")]
    Lost,
    #[error(
        "the call was made, and its answer is too long to be kept; it is not made a second time. Send it under another key"
    )]
    TooLong,
}

/// What the books say of a call that has no answer yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// Since it was claimed.
    pub age: TimeDelta,
    /// How its hold stands, and for how long it has; none where nothing is held yet.
    pub hold: Option<(HoldStatus, TimeDelta)>,
}

/// What may become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prospect {
    UnderWay,
    /// Nothing was charged, and whoever made it is gone: the call may be made.
    Vacant,
    /// It was charged or may still be, and nobody is left who has its answer.
    Lost,
}

impl Awaited {
    /// A pending hold says that its call goes on: a process that is gone does not renew it, and then it is swept.
    pub fn prospect(self) -> Prospect {
        let Some((status, since)) = self.hold else {
            return if self.age > HELD_WITHIN { Prospect::Lost } else { Prospect::UnderWay };
        };
        match status {
            HoldStatus::Pending => Prospect::UnderWay,
            _ if since <= WRITTEN_WITHIN => Prospect::UnderWay,
            HoldStatus::Released => Prospect::Vacant,
            // What an expired hold was used for can still be said.
            HoldStatus::Settled | HoldStatus::Expired => Prospect::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_goes_before_what_the_sdk_says_and_others_are_not_kept() {
        let key = IdempotencyKey::parse("k").unwrap();
        assert_eq!(Repeat::of(Some(key.clone()), true, 2), Some(Repeat::Keyed(key.clone())));
        assert_eq!(Repeat::of(Some(key), false, 0).map(|repeat| repeat.is_retry()), Some(false));
        assert_eq!(Repeat::of(None, true, 1).map(|repeat| repeat.is_retry()), Some(true));
        assert_eq!(Repeat::of(None, true, 0), Some(Repeat::OfSdk { is_retry: false }));
        assert_eq!(Repeat::of(None, true, 1), Some(Repeat::OfSdk { is_retry: true }));
        assert_eq!(Repeat::of(None, false, 0), None);
    }

    #[test]
    fn what_is_awaited_is_lost_vacant_or_under_way() {
        use HoldStatus::{Expired, Pending, Released, Settled};
        let seconds = TimeDelta::seconds;
        for (age, hold, prospect) in [
            (0, None, Prospect::UnderWay),
            (31, None, Prospect::Lost),
            (599, Some((Pending, 1)), Prospect::UnderWay),
            (9_999, Some((Pending, 1)), Prospect::UnderWay),
            (60, Some((Settled, 14)), Prospect::UnderWay),
            (60, Some((Settled, 16)), Prospect::Lost),
            (60, Some((Expired, 16)), Prospect::Lost),
            (60, Some((Released, 14)), Prospect::UnderWay),
            (60, Some((Released, 16)), Prospect::Vacant),
        ] {
            let awaited = Awaited { age: seconds(age), hold: hold.map(|(status, since)| (status, seconds(since))) };
            assert_eq!(awaited.prospect(), prospect, "{awaited:?}");
        }
    }
}
