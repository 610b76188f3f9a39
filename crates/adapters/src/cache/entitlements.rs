//! Cached entitlements: the facts of one feature of one user, and their count.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::entitlements::{Count, Entitlement};
use domain::features::FeatureId;
use domain::plans::PlanId;
use domain::usage::Period;
use domain::users::UserId;
use ports::changes::CacheTicket;
use ports::entitlements::{CachedDecision, EntitlementCache, EntitlementState, Meter};

use super::caches::ProcessCache;
use super::versions::{Moment, REMEMBERED_AT_MOST, Versions};

pub(super) struct EntitlementEntry {
    /// Its own count is the one read with the facts; `count` is the latest.
    entitlement: Entitlement,
    asked_at: Moment,
    version: u64,
    until: Moment,
    count: Count,
    counted_at: Moment,
    count_vintage: u64,
}

impl EntitlementEntry {
    fn is_of(&self, period: &Period) -> bool {
        (self.entitlement.period.kind, self.entitlement.period.start) == (period.kind, period.start)
    }
}

impl EntitlementCache for ProcessCache {
    fn recall(&self, meter: &Meter) -> CachedDecision {
        let (facts, counts) = (self.versions.of_facts(meter.user_id), self.versions.of_counts(meter.user_id));
        let recalled = self.standings.get_with(meter, |entry| {
            let now = self.versions.now();
            if entry.version != facts || now >= entry.until || !self.versions.is_fresh(entry.asked_at, now) {
                CachedDecision::Nothing
            } else if entry.count_vintage == counts && Versions::is_recent(entry.counted_at, now) {
                CachedDecision::Whole(entry.entitlement.clone().counted(&entry.count))
            } else {
                CachedDecision::Facts(entry.entitlement.clone())
            }
        });
        recalled.unwrap_or(CachedDecision::Nothing)
    }

    fn ticket(&self, user_id: UserId) -> CacheTicket {
        CacheTicket {
            facts: self.versions.of_facts(user_id),
            counts: self.versions.of_counts(user_id),
            asked_at: self.versions.elapsed(),
        }
    }

    fn remember(&self, meter: &Meter, standing: &EntitlementState, ticket: &CacheTicket) {
        let EntitlementState { entitlement, changes_at } = standing;
        let asked_at = Moment::at(ticket.asked_at);
        let feature_id = self.names.features.shared(&entitlement.feature_id);
        let entry = EntitlementEntry {
            count: Count {
                tally: entitlement.tally,
                tokens_available: entitlement.tokens_available,
                as_of: entitlement.as_of,
            },
            counted_at: asked_at,
            count_vintage: ticket.counts,
            asked_at,
            version: ticket.facts,
            until: asked_at.plus(lasting(entitlement.as_of, *changes_at)),
            entitlement: Entitlement {
                feature_id: feature_id.clone(),
                plan_id: self.names.plans.shared(&entitlement.plan_id),
                ..entitlement.clone()
            },
        };
        self.standings.put(Meter { feature_id, ..*meter }, entry);
    }

    fn recount(&self, meter: &Meter, period: &Period, count: &Count, ticket: &CacheTicket) {
        let counts = self.versions.of_counts(meter.user_id);
        let counted_at = Moment::at(ticket.asked_at);
        self.standings.get_with(meter, |entry| {
            let is_newer = entry.count_vintage != counts || entry.counted_at < counted_at;
            if ticket.counts == counts && is_newer && entry.is_of(period) {
                (entry.count, entry.counted_at, entry.count_vintage) = (*count, counted_at, counts);
            }
        });
    }

    fn note(&self, meter: &Meter, period: &Period, count: &Count) {
        // Invalidates every count that was requested earlier, whether it is cached or still being read.
        self.versions.counted(meter.user_id);
        let ticket = self.ticket(meter.user_id);
        self.recount(meter, period, count, &ticket);
    }
}

/// How long facts may be cached that were true at `as_of` and change by themselves at `changes_at`. Both are times of
/// the database, so our own clock does not matter. The duration counts from the request, which is earlier than `as_of`:
/// on the safe side.
fn lasting(as_of: DateTime<Utc>, changes_at: Option<DateTime<Utc>>) -> Duration {
    let until_change = changes_at.map(|changes_at| (changes_at - as_of).to_std().unwrap_or_default());
    until_change.unwrap_or(REMEMBERED_AT_MOST).min(REMEMBERED_AT_MOST)
}

/// The ids of plans and features; entitlements share one text per id.
#[derive(Default)]
pub(super) struct Names {
    features: Shared<FeatureId>,
    plans: Shared<PlanId>,
}

/// At this size the set is emptied: the catalogue has changed a lot, and ids still in use are added again.
const NAMES_MAX: usize = 2_000;

struct Shared<T>(RwLock<HashSet<T>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<T: Clone + Eq + Hash> Shared<T> {
    fn shared(&self, name: &T) -> T {
        if let Some(known) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return known.clone();
        }
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= NAMES_MAX {
            names.clear();
        }
        names.insert(name.clone());
        name.clone()
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use domain::changes::Change;
    use domain::usage::CounterTally;
    use ports::changes::ChangeListener;
    use ports::clock::Clock;
    use testkit::entitlements::entitlement;
    use uuid::Uuid;

    use super::super::testing::cache_and_clock;
    use super::*;

    const ADA: UserId = UserId(Uuid::from_u128(1));
    const AS_OF: DateTime<Utc> = DateTime::UNIX_EPOCH;

    fn meter() -> Meter {
        Meter { user_id: ADA, feature_id: facts().feature_id }
    }

    fn facts() -> Entitlement {
        entitlement("ai_requests", Some(10), AS_OF)
    }

    fn used(used: i64, as_of: DateTime<Utc>) -> Count {
        Count { tally: CounterTally { used, reserved: 0, overage: 0 }, tokens_available: 5, as_of }
    }

    fn remember(memory: &ProcessCache, changes_in: Option<TimeDelta>, ticket: &CacheTicket) {
        let standing = EntitlementState { entitlement: facts(), changes_at: changes_in.map(|time| AS_OF + time) };
        memory.remember(&meter(), &standing, ticket);
    }

    fn recalled_use(memory: &ProcessCache) -> Option<i64> {
        match memory.recall(&meter()) {
            CachedDecision::Whole(entitlement) => Some(entitlement.tally.used),
            CachedDecision::Facts(_) | CachedDecision::Nothing => None,
        }
    }

    #[test]
    fn facts_go_with_the_user_and_the_catalogue_and_not_with_keys() {
        let (memory, _) = cache_and_clock();
        for change in [Change::User(ADA), Change::Catalogue, Change::Everything] {
            remember(&memory, None, &memory.ticket(ADA));
            assert_eq!(memory.recall(&meter()), CachedDecision::Whole(facts()));
            memory.invalidate(Change::Key(domain::api_keys::ApiKeyId(Uuid::from_u128(1))));
            assert_eq!(memory.recall(&meter()), CachedDecision::Whole(facts()));
            memory.invalidate(change);
            assert_eq!(memory.recall(&meter()), CachedDecision::Nothing, "{change:?}");
        }
        let overtaken = memory.ticket(ADA);
        memory.invalidate(Change::User(ADA));
        remember(&memory, None, &overtaken);
        assert_eq!(memory.recall(&meter()), CachedDecision::Nothing, "a change overtook it");
    }

    #[test]
    fn facts_are_not_given_beyond_the_moment_at_which_they_change_by_themselves() {
        let (memory, clock) = cache_and_clock();
        remember(&memory, Some(TimeDelta::milliseconds(80)), &memory.ticket(ADA));
        assert_eq!(memory.recall(&meter()), CachedDecision::Whole(facts()));
        clock.advance(TimeDelta::milliseconds(80));
        memory.confirm_fresh(clock.elapsed());
        assert_eq!(memory.recall(&meter()), CachedDecision::Nothing);
        remember(&memory, Some(TimeDelta::zero()), &memory.ticket(ADA));
        assert_eq!(memory.recall(&meter()), CachedDecision::Nothing);
    }

    #[test]
    fn facts_outlive_a_count_where_somebody_vouches() {
        let (memory, clock) = cache_and_clock();
        let ticket = memory.ticket(ADA);
        clock.advance(TimeDelta::milliseconds(1_050));
        remember(&memory, None, &ticket);
        assert_eq!(memory.recall(&meter()), CachedDecision::Nothing);
        memory.confirm_fresh(clock.elapsed());
        assert_eq!(memory.recall(&meter()), CachedDecision::Facts(facts()));
        let fresh = used(3, AS_OF + TimeDelta::seconds(1));
        memory.recount(&meter(), &facts().period, &fresh, &memory.ticket(ADA));
        assert_eq!(memory.recall(&meter()), CachedDecision::Whole(facts().counted(&fresh)));
        memory.recount(&meter(), &facts().period, &used(9, AS_OF), &ticket);
        assert_eq!(recalled_use(&memory), Some(3), "an older count takes nobody's place");
        let other = Period { start: AS_OF + TimeDelta::days(31), ..facts().period };
        memory.recount(&meter(), &other, &used(0, AS_OF), &memory.ticket(ADA));
        assert_eq!(recalled_use(&memory), Some(3), "a count of another period is none of this one");
    }

    #[test]
    fn what_was_noted_is_newer_than_what_was_asked_for_before() {
        let (memory, _) = cache_and_clock();
        remember(&memory, None, &memory.ticket(ADA));
        let asked = memory.ticket(ADA);
        memory.note(&meter(), &facts().period, &used(7, AS_OF));
        assert_eq!(recalled_use(&memory), Some(7));
        memory.recount(&meter(), &facts().period, &used(6, AS_OF), &asked);
        assert_eq!(recalled_use(&memory), Some(7));
        remember(&memory, None, &asked);
        assert_eq!(
            memory.recall(&meter()),
            CachedDecision::Facts(facts()),
            "its count was overtaken, its facts were not"
        );
        let other = Meter { feature_id: testkit::features::feature_id("exports"), ..meter() };
        memory.note(&other, &facts().period, &used(1, AS_OF));
        assert_eq!(memory.recall(&other), CachedDecision::Nothing, "a count alone is no entitlement");
    }

    #[test]
    fn an_entry_is_small() {
        let bytes = size_of::<EntitlementEntry>() + size_of::<Meter>();
        assert!(bytes <= 320, "{bytes}");
    }
}
