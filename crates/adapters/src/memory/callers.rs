//! Callers in memory: roles by user, keys by hash.

use std::time::Instant;

use domain::changes::Change;
use domain::identity::Role;
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

pub(super) struct RoleEntry {
    role: Role,
    read: Read,
}

pub(super) struct KeyEntry {
    key: KnownKey,
    read: Read,
}

impl CallerCache for Memory {
    fn role(&self, user_id: UserId) -> Option<Role> {
        let (role, read) = self.roles.look(&user_id, |entry| (entry.role, entry.read))?;
        read.is_believed(&self.vintages, self.vintages.of_role(user_id)).then_some(role)
    }

    fn role_ticket(&self, user_id: UserId) -> Ticket {
        Ticket { facts: self.vintages.of_role(user_id), counts: 0, asked_at: Instant::now() }
    }

    fn remember_role(&self, user_id: UserId, role: Role, ticket: &Ticket) {
        let read = Read { asked_at: self.vintages.moment(ticket.asked_at), vintage: ticket.facts };
        self.roles.put(user_id, RoleEntry { role, read });
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
    use domain::identity::PermissionSet;
    use ports::changes::ChangeListener;
    use uuid::Uuid;

    use super::*;

    const ADA: UserId = UserId(Uuid::from_u128(1));
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
        memory.remember_role(ADA, Role::Admin, &memory.role_ticket(ADA));
        assert_eq!(memory.role(ADA), Some(Role::Admin));
        memory.remember_role(ADA, Role::Admin, &aged(memory.role_ticket(ADA), Duration::from_millis(1_001)));
        assert_eq!(memory.role(ADA), None, "nobody vouches for what is a second old");
        memory.vouch(Instant::now());
        assert_eq!(memory.role(ADA), Some(Role::Admin));
        memory.lost();
        assert_eq!(memory.role(ADA), None);
    }

    #[test]
    fn what_a_change_overtook_is_not_believed() {
        for change in [Change::User(ADA), Change::Everything] {
            let memory = Memory::new();
            let (role, anything) = (memory.role_ticket(ADA), memory.key_ticket());
            memory.heard(change);
            memory.remember_role(ADA, Role::Admin, &role);
            memory.remember_key("hash", key(), &anything);
            assert_eq!((memory.role(ADA), memory.key("hash")), (None, None), "{change:?}");
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
