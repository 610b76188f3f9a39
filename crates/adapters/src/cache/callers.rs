//! Cached callers: the facts about users, and API keys by hash.

use domain::changes::Change;
use domain::identity::CallerFacts;
use domain::users::UserId;
use ports::api_keys::KnownKey;
use ports::changes::CacheTicket;
use ports::identity::CallerCache;

use super::caches::ProcessCache;
use super::versions::{Moment, REMEMBERED_AT_MOST, Versions};

/// When an entry was requested, and the version that it depends on.
#[derive(Clone, Copy)]
struct Read {
    asked_at: Moment,
    version: u64,
}

impl Read {
    fn is_fresh(self, versions: &Versions, version: u64) -> bool {
        let now = versions.now();
        self.version == version && versions.is_fresh(self.asked_at, now) && now < self.asked_at.plus(REMEMBERED_AT_MOST)
    }
}

pub(super) struct CallerEntry {
    facts: CallerFacts,
    read: Read,
}

pub(super) struct KeyEntry {
    key: KnownKey,
    read: Read,
}

impl CallerCache for ProcessCache {
    fn facts(&self, user_id: UserId) -> Option<CallerFacts> {
        let (facts, read) = self.callers.get_with(&user_id, |entry| (entry.facts, entry.read))?;
        // No feed reports that another service has banned or deleted an identity.
        let is_known = !self.identities_elsewhere || Versions::is_recent(read.asked_at, self.versions.now());
        (is_known && read.is_fresh(&self.versions, self.versions.of_role(user_id))).then_some(facts)
    }

    fn facts_ticket(&self, user_id: UserId) -> CacheTicket {
        CacheTicket { facts: self.versions.of_role(user_id), counts: 0, asked_at: self.versions.elapsed() }
    }

    fn remember_facts(&self, user_id: UserId, facts: CallerFacts, ticket: &CacheTicket) {
        let read = Read { asked_at: Moment::at(ticket.asked_at), version: ticket.facts };
        self.callers.put(user_id, CallerEntry { facts, read });
    }

    fn key(&self, hash: &str) -> Option<KnownKey> {
        let (key, read) = self.keys.get_with(hash, |entry| (entry.key.clone(), entry.read))?;
        read.is_fresh(&self.versions, self.versions.of_key(key.id, key.user_id)).then_some(key)
    }

    fn key_ticket(&self) -> CacheTicket {
        CacheTicket { facts: self.versions.of_anything(), counts: 0, asked_at: self.versions.elapsed() }
    }

    fn remember_key(&self, hash: &str, key: KnownKey, ticket: &CacheTicket) {
        // Take the version first, then check that nothing has changed since the read was requested. A change increments
        // the count of all changes first: an earlier change fails this check, and a later one makes the version stale.
        let version = self.versions.of_key(key.id, key.user_id);
        if self.versions.of_anything() == ticket.facts {
            let read = Read { asked_at: Moment::at(ticket.asked_at), version };
            self.keys.put(hash.into(), KeyEntry { key, read });
        }
    }

    fn forget(&self, user_id: UserId) {
        self.versions.invalidate(Change::User(user_id));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use chrono::TimeDelta;
    use domain::api_keys::{ApiKeyId, KeyBudgets, KeyLimits};
    use domain::identity::{IdentityState, PermissionSet, Role};
    use ports::changes::ChangeListener;
    use ports::clock::Clock;
    use testkit::clock::FixedClock;
    use uuid::Uuid;

    use super::super::testing::{an_hour_later, cache_and_clock};
    use super::*;

    const ADA: UserId = UserId(Uuid::from_u128(1));
    const ADMIN: CallerFacts = CallerFacts { role: Some(Role::Admin), state: IdentityState::Active, began_at: None };
    const KEY: ApiKeyId = ApiKeyId(Uuid::from_u128(9));

    fn key() -> KnownKey {
        KnownKey {
            id: KEY,
            user_id: ADA,
            role: Role::User,
            permissions: Arc::new(PermissionSet::all()),
            on_behalf: false,
            budgets: KeyBudgets::alone(KEY, KeyLimits { requests_per_minute: Some(7), ..KeyLimits::NONE }),
            is_active: true,
            expires_at: None,
        }
    }

    /// The ticket as if it had been taken earlier.
    fn aged(ticket: CacheTicket, by: Duration) -> CacheTicket {
        CacheTicket { asked_at: ticket.asked_at.checked_sub(by).unwrap(), ..ticket }
    }

    #[test]
    fn a_role_is_believed_for_a_second_and_longer_while_somebody_vouches() {
        let (memory, clock) = cache_and_clock();
        memory.remember_facts(ADA, ADMIN, &memory.facts_ticket(ADA));
        assert_eq!(memory.facts(ADA), Some(ADMIN));
        clock.advance(TimeDelta::milliseconds(1_001));
        assert_eq!(memory.facts(ADA), None, "nobody vouches for what is a second old");
        memory.confirm_fresh(clock.elapsed());
        assert_eq!(memory.facts(ADA), Some(ADMIN));
        memory.invalidate_all();
        assert_eq!(memory.facts(ADA), None);
    }

    #[test]
    fn nobody_vouches_for_an_identity_that_another_service_keeps() {
        let clock = an_hour_later();
        let memory = ProcessCache::for_identities_elsewhere(Arc::<FixedClock>::clone(&clock));
        memory.confirm_fresh(clock.elapsed());
        memory.remember_facts(ADA, ADMIN, &memory.facts_ticket(ADA));
        assert_eq!(memory.facts(ADA), Some(ADMIN));
        memory.remember_facts(ADA, ADMIN, &aged(memory.facts_ticket(ADA), Duration::from_millis(1_001)));
        assert_eq!(memory.facts(ADA), None);
        memory.remember_key("hash", key(), &aged(memory.key_ticket(), Duration::from_millis(1_001)));
        assert_eq!(memory.key("hash"), Some(key()), "the key itself is ours");
    }

    #[test]
    fn what_a_change_overtook_is_not_believed() {
        for change in [Change::User(ADA), Change::Everything] {
            let (memory, _) = cache_and_clock();
            let (role, anything) = (memory.facts_ticket(ADA), memory.key_ticket());
            memory.invalidate(change);
            memory.remember_facts(ADA, ADMIN, &role);
            memory.remember_key("hash", key(), &anything);
            assert_eq!((memory.facts(ADA), memory.key("hash")), (None, None), "{change:?}");
        }
    }

    #[test]
    fn a_key_is_forgotten_with_its_owner_and_by_itself() {
        for change in [Change::Key(KEY), Change::User(ADA), Change::Everything] {
            let (memory, _) = cache_and_clock();
            memory.remember_key("hash", key(), &memory.key_ticket());
            assert_eq!((memory.key("hash"), memory.key("other")), (Some(key()), None));
            memory.invalidate(Change::Catalogue);
            assert_eq!(memory.key("hash"), Some(key()), "keys do not depend on the catalogue");
            memory.invalidate(change);
            assert_eq!(memory.key("hash"), None, "{change:?}");
        }
    }
}
