//! Windows of API keys: the requests and tokens that a key may use for model calls in a minute, the cost that it may
//! cause in a month, and what calls in progress reserve of these.

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Period, PeriodKind};
use crate::api_keys::KeyLimits;
use crate::prices::NanoUsd;

/// What a call reserves of its key's limits, and in which windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKeyReservation {
    pub windows: ApiKeyWindows,
    pub tokens: i64,
    pub cost_nano_usd: i64,
}

/// The UTC minute and month in which a call begins. All its use is counted there, however long it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ApiKeyWindows {
    pub minute: DateTime<Utc>,
    pub month: DateTime<Utc>,
}

/// The length of a key's window. Requests and tokens are limited per minute, cost per month.
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

/// What calls by a key used in one window, and what calls in progress reserve. Cost is in nano-dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApiKeyUsage {
    pub requests: i64,
    pub tokens: i64,
    pub tokens_held: i64,
    pub cost: i64,
    pub cost_held: i64,
}

/// The limit of a key that was reached, with its numbers.
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
    /// When the window of the reached limit ends.
    pub fn resets_at(&self, windows: &ApiKeyWindows) -> DateTime<Utc> {
        match self {
            Self::Requests { .. } | Self::Tokens { .. } => windows.minute + TimeDelta::minutes(1),
            Self::Cost { .. } => {
                Period::containing(PeriodKind::Month, windows.month, windows.month).end.unwrap_or(windows.month)
            }
        }
    }
}

impl ApiKeyWindows {
    pub fn at(now: DateTime<Utc>) -> Self {
        let minute = now.duration_trunc(TimeDelta::minutes(1)).unwrap_or(now);
        Self { minute, month: Period::containing(PeriodKind::Month, now, now).start }
    }
}

/// Whether a key's limits admit a call that can use `share`. Counts nothing.
pub fn admit(
    limits: &KeyLimits,
    minute: &ApiKeyUsage,
    month: &ApiKeyUsage,
    share: &ApiKeyReservation,
) -> Result<(), KeyLimitReached> {
    if let Some(limit) = limits.requests_per_minute.filter(|limit| minute.requests >= *limit) {
        return Err(KeyLimitReached::Requests { limit, used: minute.requests });
    }
    admit_more(limits, minute, month, share)
}

/// Whether a call in progress may reserve this much more. Counts nothing.
pub fn admit_more(
    limits: &KeyLimits,
    minute: &ApiKeyUsage,
    month: &ApiKeyUsage,
    more: &ApiKeyReservation,
) -> Result<(), KeyLimitReached> {
    let ApiKeyReservation { tokens, cost_nano_usd: cost, .. } = *more;
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

impl ApiKeyReservation {
    /// What must be reserved in addition to reach these totals; a reservation never shrinks.
    #[must_use]
    pub fn up_to(&self, tokens: i64, cost: i64) -> Self {
        let missing = |all: i64, held| all.saturating_sub(held).max(0);
        Self {
            windows: self.windows,
            tokens: missing(tokens, self.tokens),
            cost_nano_usd: missing(cost, self.cost_nano_usd),
        }
    }

    /// The sum of both.
    #[must_use]
    pub fn with(&self, more: &Self) -> Self {
        Self {
            windows: self.windows,
            tokens: self.tokens.saturating_add(more.tokens),
            cost_nano_usd: self.cost_nano_usd.saturating_add(more.cost_nano_usd),
        }
    }
}

impl ApiKeyUsage {
    pub fn hold(&mut self, share: &ApiKeyReservation) {
        self.requests += 1;
        self.hold_more(share);
    }

    /// For a call that is already counted as a request.
    pub fn hold_more(&mut self, more: &ApiKeyReservation) {
        self.tokens_held += more.tokens;
        self.cost_held += more.cost_nano_usd;
    }

    /// Removes the reservation and counts `used`, as `(tokens, nano-dollars)`. A call that used nothing is no request.
    pub fn settle(&mut self, share: &ApiKeyReservation, used: Option<(i64, i64)>) {
        self.tokens_held -= share.tokens;
        self.cost_held -= share.cost_nano_usd;
        match used {
            Some(used) => self.add(used),
            None => self.requests -= 1,
        }
    }

    /// Counts a call whose reservation was returned in full when it expired.
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
        let windows = ApiKeyWindows::at(now);
        let share = |tokens, cost_nano_usd| ApiKeyReservation { windows, tokens, cost_nano_usd };
        let mut tally = ApiKeyUsage::default();
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
