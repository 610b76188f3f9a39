//! Callers in memory: what is to be known of users, and keys by hash.

use std::time::Instant;

use domain::changes::Change;
use domain::identity::CallerFacts;
use domain::users::UserId;
use ports::api_keys::KnownKey;
use ports::changes::Ticket;
use ports::identity::CallerCache;

use super::remembered::Memory;
use super::vintages::{Moment, REMEMBERED_AT_MOST, Vintages};

/// When something was asked for, and what it depended on.
#[derive(Clone, Copy)]
struct Read {
    asked_at: Moment,
    vintage: u64,
}

impl Read {
    fn is_believed(self, vintages: &Vintages, vintage: u64) -> bool {
        let now = vintages.now();
        self.vintage == vintage && vintages.believes(self.asked_at, now) && now < self.asked_at.plus(REMEMBERED_AT_MOST)
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

impl CallerCache for Memory {
    fn facts(&self, user_id: UserId) -> Option<CallerFacts> {
        let (facts, read) = self.callers.look(&user_id, |entry| (entry.facts, entry.read))?;
        // Nobody tells us when another service bans or deletes an identity.
        let is_known = !self.identities_elsewhere || Vintages::is_young(read.asked_at, self.vintages.now());
        (is_known && read.is_believed(&self.vintages, self.vintages.of_role(user_id))).then_some(facts)
    }

    fn facts_ticket(&self, user_id: UserId) -> Ticket {
        Ticket { facts: self.vintages.of_role(user_id), counts: 0, asked_at: Instant::now() }
    }

    fn remember_facts(&self, user_id: UserId, facts: CallerFacts, ticket: &Ticket) {
        let read = Read { asked_at: self.vintages.moment(ticket.asked_at), vintage: ticket.facts };
        self.callers.put(user_id, CallerEntry { facts, read });
    }

    fn key(&self, hash: &str) -> Option<KnownKey> {
        let (key, read) = self.keys.look(hash, |entry| (entry.key.clone(), entry.read))?;
        read.is_believed(&self.vintages, self.vintages.of_key(key.id, key.user_id)).then_some(key)
    }

    fn key_ticket(&self) -> Ticket {
        Ticket { facts: self.vintages.of_anything(), counts: 0, asked_at: Instant::now() }
    }

    fn remember_key(&self, hash: &str, key: KnownKey, ticket: &Ticket) {
        // First what it depends on, then whether anything has moved since it was asked for: a change moves the number of
        // all changes before any other, so one that came between is seen here, and one that comes now is seen later.
        let vintage = self.vintages.of_key(key.id, key.user_id);
        if self.vintages.of_anything() == ticket.facts {
            let read = Read { asked_at: self.vintages.moment(ticket.asked_at), vintage };
            self.keys.put(hash.into(), KeyEntry { key, read });
        }
    }

    fn forget(&self, user_id: UserId) {
        self.vintages.heard(Change::User(user_id));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use domain::api_keys::{ApiKeyId, KeyBudgets, KeyLimits};
    use domain::identity::{IdentityState, PermissionSet, Role};
    use ports::changes::ChangeListener;
    use uuid::Uuid;

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

    /// A ticket of the past: as if it had been asked then.
    fn aged(ticket: Ticket, by: Duration) -> Ticket {
        Ticket { asked_at: ticket.asked_at.checked_sub(by).unwrap(), ..ticket }
    }

    fn old_memory() -> Memory {
        let memory = Memory::new();
        // The memory counts from its making; a moment before it would be none.
        std::thread::sleep(Duration::from_millis(1_100));
        memory
    }

    #[test]
    fn a_role_is_believed_for_a_second_and_longer_while_somebody_vouches() {
        let memory = old_memory();
        memory.remember_facts(ADA, ADMIN, &memory.facts_ticket(ADA));
        assert_eq!(memory.facts(ADA), Some(ADMIN));
        memory.remember_facts(ADA, ADMIN, &aged(memory.facts_ticket(ADA), Duration::from_millis(1_001)));
        assert_eq!(memory.facts(ADA), None, "nobody vouches for what is a second old");
        memory.vouch(Instant::now());
        assert_eq!(memory.facts(ADA), Some(ADMIN));
        memory.lost();
        assert_eq!(memory.facts(ADA), None);
    }

    #[test]
    fn nobody_vouches_for_an_identity_that_another_service_keeps() {
        let memory = Memory::for_identities_elsewhere();
        std::thread::sleep(Duration::from_millis(1_100));
        memory.vouch(Instant::now());
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
            let memory = Memory::new();
            let (role, anything) = (memory.facts_ticket(ADA), memory.key_ticket());
            memory.heard(change);
            memory.remember_facts(ADA, ADMIN, &role);
            memory.remember_key("hash", key(), &anything);
            assert_eq!((memory.facts(ADA), memory.key("hash")), (None, None), "{change:?}");
        }
    }

    #[test]
    fn a_key_is_forgotten_with_its_owner_and_by_itself() {
        for change in [Change::Key(KEY), Change::User(ADA), Change::Everything] {
            let memory = Memory::new();
            memory.remember_key("hash", key(), &memory.key_ticket());
            assert_eq!((memory.key("hash"), memory.key("other")), (Some(key()), None));
            memory.heard(Change::Catalogue);
            assert_eq!(memory.key("hash"), Some(key()), "keys do not depend on the catalogue");
            memory.heard(change);
            assert_eq!(memory.key("hash"), None, "{change:?}");
        }
    }
}
