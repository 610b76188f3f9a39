//! Recency: whether somebody proved who they are so lately that they may do what cannot be undone.

use chrono::{DateTime, TimeDelta, Utc};

use super::states::CLOCK_LEEWAY;

/// How long ago a password (or the identity provider's own log-in) may lie. Zero or less asks for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecencyRule {
    pub within: TimeDelta,
}

impl RecencyRule {
    pub fn is_off(self) -> bool {
        self.within <= TimeDelta::zero()
    }

    /// A moment that is not known is not recent, and neither is one that lies ahead by more than clocks differ.
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
