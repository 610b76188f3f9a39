//! Cache loader: reads what the caches of this process miss from Postgres, several misses together.
//!
//! All kinds go in one transaction, since opening and closing it costs more than the rows: roles of callers,
//! entitlements with their counts, and counts alone. One statement a kind, each through the keys of its tables
//! (`Scope::Reading`). What was read is cached under tickets that were taken before. What does not exist is not cached.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use domain::entitlements::Count;
use domain::identity::{CallerFacts, IdentityState};
use domain::usage::Period;
use domain::users::UserId;
use ports::entitlements::{EntitlementCache, EntitlementState, Meter, MeterMissing};
use ports::identity::CallerCache;
use ports::store::{Scope, Store, StoreError};

use crate::coalescer::{Coalescer, CoalescerLimits};

/// How many misses one transaction reads, and how many of these run at once at most.
const LIMITS: CoalescerLimits = CoalescerLimits { keys_a_fetch: 500, fetches: 4 };

/// Shared by all its callers; a clone of the `Arc` that holds it is enough.
pub struct CacheLoader(Coalescer<CacheMiss, LoadedEntry>);

/// The store that is read, and the caches that are filled.
#[derive(Clone)]
struct LoaderParts {
    store: Arc<dyn Store>,
    callers: Arc<dyn CallerCache>,
    entitlements: Arc<dyn EntitlementCache>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum CacheMiss {
    Caller(UserId),
    Entitlement(Meter),
    Count(Counted),
}

#[derive(Clone)]
enum LoadedEntry {
    Caller(CallerFacts),
    Entitlement(Result<EntitlementState, MeterMissing>),
    Count(Option<Count>),
}

/// A meter, and the period in which it is counted.
#[derive(Clone, PartialEq, Eq)]
struct Counted(Meter, Period);

impl Hash for Counted {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self(meter, period) = self;
        (meter, period.kind, period.start).hash(state);
    }
}

impl CacheLoader {
    /// Call it within the runtime on which the transactions are to run.
    pub fn new(store: Arc<dyn Store>, callers: Arc<dyn CallerCache>, entitlements: Arc<dyn EntitlementCache>) -> Self {
        let desk = LoaderParts { store, callers, entitlements };
        Self(Coalescer::new(LIMITS, move |questions| {
            let desk = desk.clone();
            Box::pin(async move { desk.answer(questions).await })
        }))
    }

    /// The facts about a caller, with a profile or without.
    pub async fn caller(&self, user_id: UserId) -> Result<CallerFacts, StoreError> {
        match self.0.get(CacheMiss::Caller(user_id)).await? {
            LoadedEntry::Caller(facts) => Ok(facts),
            _ => Err(mixed_up()),
        }
    }

    pub async fn standing(&self, meter: Meter) -> Result<Result<EntitlementState, MeterMissing>, StoreError> {
        match self.0.get(CacheMiss::Entitlement(meter)).await? {
            LoadedEntry::Entitlement(standing) => Ok(standing),
            _ => Err(mixed_up()),
        }
    }

    /// `None` where there is no such user.
    pub async fn count(&self, meter: Meter, period: Period) -> Result<Option<Count>, StoreError> {
        match self.0.get(CacheMiss::Count(Counted(meter, period))).await? {
            LoadedEntry::Count(count) => Ok(count),
            _ => Err(mixed_up()),
        }
    }
}

/// Never happens: each miss is answered by an entry of its kind.
fn mixed_up() -> StoreError {
    StoreError::Unexpected("a question was answered by another's finding".into())
}

impl LoaderParts {
    async fn answer(&self, questions: Vec<CacheMiss>) -> Result<Vec<LoadedEntry>, StoreError> {
        let (mut users, mut meters, mut counted) = (Vec::new(), Vec::new(), Vec::new());
        for question in &questions {
            match question {
                CacheMiss::Caller(user_id) => users.push(*user_id),
                CacheMiss::Entitlement(meter) => meters.push(meter.clone()),
                CacheMiss::Count(Counted(meter, period)) => counted.push((meter.clone(), *period)),
            }
        }
        let caller_tickets: Vec<_> = users.iter().map(|user_id| self.callers.facts_ticket(*user_id)).collect();
        let ticket = |meter: &Meter| self.entitlements.ticket(meter.user_id);
        let standing_tickets: Vec<_> = meters.iter().map(ticket).collect();
        let count_tickets: Vec<_> = counted.iter().map(|(meter, _)| ticket(meter)).collect();

        let mut work = self.store.begin(Scope::Reading).await?;
        let callers = if users.is_empty() { Vec::new() } else { work.users().find_callers(&users).await? };
        let standings = if meters.is_empty() { Vec::new() } else { work.entitlements().find_many(&meters).await? };
        let counts = if counted.is_empty() { Vec::new() } else { work.entitlements().count_many(&counted).await? };
        work.commit().await?;

        let callers: HashMap<_, _> = callers.into_iter().collect();
        for (user_id, ticket) in users.iter().zip(&caller_tickets) {
            // A caller without a profile, or one that may not act now, is not cached: that may change at any time.
            let acts = |facts: &&CallerFacts| facts.role.is_some() && facts.state == IdentityState::Active;
            if let Some(facts) = callers.get(user_id).filter(acts) {
                self.callers.remember_facts(*user_id, *facts, ticket);
            }
        }
        for ((meter, ticket), standing) in meters.iter().zip(&standing_tickets).zip(&standings) {
            if let Ok(standing) = standing {
                self.entitlements.remember(meter, standing, ticket);
            }
        }
        for (((meter, period), ticket), count) in counted.iter().zip(&count_tickets).zip(&counts) {
            if let Some(count) = count {
                self.entitlements.recount(meter, period, count, ticket);
            }
        }
        let (mut standings, mut counts) = (standings.into_iter(), counts.into_iter());
        let finding = |question| match question {
            CacheMiss::Caller(user_id) => callers.get(&user_id).copied().map(LoadedEntry::Caller),
            CacheMiss::Entitlement(_) => standings.next().map(LoadedEntry::Entitlement),
            CacheMiss::Count(_) => counts.next().map(LoadedEntry::Count),
        };
        // A missing entry makes the number wrong, which is an error for all of them.
        Ok(questions.into_iter().filter_map(finding).collect())
    }
}
