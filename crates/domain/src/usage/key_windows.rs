//! Windows of API keys: what a key may use of its owner's calls of models in a minute and cost in a month, and what calls
//! under way hold of that.

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Period, PeriodKind};
use crate::api_keys::KeyLimits;
use crate::prices::NanoUsd;

/// What a call holds of its key's limits, and in which windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyShare {
    pub windows: KeyWindows,
    pub tokens: i64,
    pub cost_nano_usd: i64,
}

/// The minute and the month of UTC in which a call is made. Whatever it uses is counted there, however long it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyWindows {
    pub minute: DateTime<Utc>,
    pub month: DateTime<Utc>,
}

/// For how long a window of a key lasts. Requests and tokens are limited in a minute, costs in a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WindowKind {
    Minute,
    Month,
}

impl WindowKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Month => "month",
        }
    }
}

/// What calls by a key used in one window, and what those under way hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyTally {
    pub requests: i64,
    pub tokens: i64,
    pub tokens_held: i64,
    pub cost: i64,
    pub cost_held: i64,
}

/// Which limit of a key stands in the way, with its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyLimitReached {
    #[error("this API key has made {used} of {limit} requests of this minute")]
    Requests { limit: i64, used: i64 },
    #[error(
        "this API key has used or held {used} of the {limit} tokens of this minute, and the call can use {needed} more"
    )]
    Tokens { limit: i64, used: i64, needed: i64 },
    #[error(
        "this API key has spent or held {} of the {} dollars of this month, and the call can cost {} more",
        .used.usd().normalize(), .limit.usd().normalize(), .needed.usd().normalize()
    )]
    Cost { limit: NanoUsd, used: NanoUsd, needed: NanoUsd },
}

impl KeyLimitReached {
    /// When the window ends in which it is reached.
    pub fn resets_at(&self, windows: &KeyWindows) -> DateTime<Utc> {
        match self {
            Self::Requests { .. } | Self::Tokens { .. } => windows.minute + TimeDelta::minutes(1),
            Self::Cost { .. } => {
                Period::containing(PeriodKind::Month, windows.month, windows.month).end.unwrap_or(windows.month)
            }
        }
    }
}

impl KeyWindows {
    pub fn at(now: DateTime<Utc>) -> Self {
        let minute = now.duration_trunc(TimeDelta::minutes(1)).unwrap_or(now);
        Self { minute, month: Period::containing(PeriodKind::Month, now, now).start }
    }
}

/// Whether a call that can use this share may be made by a key. Nothing is counted.
pub fn admit(limits: &KeyLimits, minute: &KeyTally, month: &KeyTally, share: &KeyShare) -> Result<(), KeyLimitReached> {
    if let Some(limit) = limits.requests_per_minute.filter(|limit| minute.requests >= *limit) {
        return Err(KeyLimitReached::Requests { limit, used: minute.requests });
    }
    admit_more(limits, minute, month, share)
}

/// Whether a call that is under way may hold so much more. Nothing is counted.
pub fn admit_more(
    limits: &KeyLimits,
    minute: &KeyTally,
    month: &KeyTally,
    more: &KeyShare,
) -> Result<(), KeyLimitReached> {
    let KeyShare { tokens, cost_nano_usd: cost, .. } = *more;
    let used = minute.tokens.saturating_add(minute.tokens_held);
    if let Some(limit) = limits.tokens_per_minute.filter(|limit| used.saturating_add(tokens) > *limit) {
        return Err(KeyLimitReached::Tokens { limit, used, needed: tokens });
    }
    let used = month.cost.saturating_add(month.cost_held);
    if let Some(limit) = limits.monthly_cost.filter(|limit| used.saturating_add(cost) > limit.0) {
        return Err(KeyLimitReached::Cost { limit, used: NanoUsd(used), needed: NanoUsd(cost) });
    }
    Ok(())
}

impl KeyShare {
    /// What a call that has it must hold more to hold so much in all; what is held already is never given back by it.
    #[must_use]
    pub fn up_to(&self, tokens: i64, cost: i64) -> Self {
        let missing = |all: i64, held| all.saturating_sub(held).max(0);
        Self {
            windows: self.windows,
            tokens: missing(tokens, self.tokens),
            cost_nano_usd: missing(cost, self.cost_nano_usd),
        }
    }

    /// Both together.
    #[must_use]
    pub fn with(&self, more: &Self) -> Self {
        Self {
            windows: self.windows,
            tokens: self.tokens.saturating_add(more.tokens),
            cost_nano_usd: self.cost_nano_usd.saturating_add(more.cost_nano_usd),
        }
    }
}

impl KeyTally {
    pub fn hold(&mut self, share: &KeyShare) {
        self.requests += 1;
        self.hold_more(share);
    }

    /// For a call that is counted as a request already.
    pub fn hold_more(&mut self, more: &KeyShare) {
        self.tokens_held += more.tokens;
        self.cost_held += more.cost_nano_usd;
    }

    /// What was held is given back, and what was used is counted. A call that used nothing was no request.
    pub fn settle(&mut self, share: &KeyShare, used: Option<(i64, i64)>) {
        self.tokens_held -= share.tokens;
        self.cost_held -= share.cost_nano_usd;
        match used {
            Some(used) => self.add(used),
            None => self.requests -= 1,
        }
    }

    /// Counts a call of which nothing was held any more: all of it was given back when its hold expired.
    pub const fn settle_late(&mut self, used: (i64, i64)) {
        self.requests += 1;
        self.add(used);
    }

    const fn add(&mut self, (tokens, cost): (i64, i64)) {
        self.tokens = self.tokens.saturating_add(tokens);
        self.cost = self.cost.saturating_add(cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_limits_of_its_own() {
        let limits = KeyLimits {
            requests_per_minute: Some(2),
            tokens_per_minute: Some(100),
            monthly_cost: Some(NanoUsd(1_000)),
        };
        let now = DateTime::UNIX_EPOCH + TimeDelta::seconds(45 * 86_400 + 61);
        let windows = KeyWindows::at(now);
        let share = |tokens, cost_nano_usd| KeyShare { windows, tokens, cost_nano_usd };
        let mut tally = KeyTally::default();
        assert_eq!(admit(&limits, &tally, &tally, &share(60, 600)), Ok(()));
        tally.hold(&share(60, 600));
        let tokens = KeyLimitReached::Tokens { limit: 100, used: 60, needed: 41 };
        assert_eq!(admit(&limits, &tally, &tally, &share(41, 0)), Err(tokens));
        let cost = KeyLimitReached::Cost { limit: NanoUsd(1_000), used: NanoUsd(600), needed: NanoUsd(401) };
        assert_eq!(admit(&limits, &tally, &tally, &share(40, 401)), Err(cost));
        tally.settle(&share(60, 600), Some((10, 90)));
        assert_eq!((tally.tokens, tally.tokens_held, tally.cost, tally.cost_held), (10, 0, 90, 0));
        tally.hold(&share(90, 0));
        assert_eq!(admit(&limits, &tally, &tally, &share(0, 0)), Err(KeyLimitReached::Requests { limit: 2, used: 2 }));
        tally.settle(&share(90, 0), None);
        assert_eq!(admit(&limits, &tally, &tally, &share(90, 0)), Ok(()), "what was given back was no request");
        let held = share(10, 70);
        let more = held.up_to(25, 60);
        assert_eq!((more, held.with(&more)), (share(15, 0), share(25, 70)));
        assert_eq!(
            admit_more(&limits, &tally, &tally, &share(91, 0)).map_err(|why| why.resets_at(&windows)),
            Err(windows.minute + TimeDelta::minutes(1))
        );
        let before = tally.requests;
        tally.hold_more(&more);
        assert_eq!((tally.requests, tally.tokens_held), (before, 15), "it was a request before");
        assert_eq!(tokens.resets_at(&windows), windows.minute + TimeDelta::minutes(1));
        assert_eq!(cost.resets_at(&windows).to_rfc3339(), "1970-03-01T00:00:00+00:00");
    }
}
