//! Recency: whether a user authenticated recently enough for an action that cannot be undone.

use chrono::{DateTime, TimeDelta, Utc};

use super::states::CLOCK_LEEWAY;

/// The longest time since a password (or the identity provider's own log-in) was given. Zero or less requires none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecencyRule {
    pub within: TimeDelta,
}

impl RecencyRule {
    pub fn is_off(self) -> bool {
        self.within <= TimeDelta::zero()
    }

    /// An unknown time is not recent, and neither is one that is in the future by more than [`CLOCK_LEEWAY`].
    pub fn is_recent(self, authenticated_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
        self.is_off() || authenticated_at.is_some_and(|at| at <= now + CLOCK_LEEWAY && now - at <= self.within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_recent_within_its_bound_and_not_ahead() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        let rule = RecencyRule { within: TimeDelta::minutes(10) };
        for (seconds, is_recent) in [(0, true), (600, true), (601, false), (86_400, false), (-30, true), (-31, false)] {
            assert_eq!(rule.is_recent(Some(now - TimeDelta::seconds(seconds)), now), is_recent, "{seconds} s ago");
        }
        assert!(!rule.is_recent(None, now));
        let off = RecencyRule { within: TimeDelta::zero() };
        assert!(off.is_recent(None, now) && off.is_recent(Some(DateTime::UNIX_EPOCH), now));
    }
}
