//! The rights of a caller at one time. A response that was stored for one credential is returned only to credentials
//! that could have received it themselves.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::callers::{Caller, Credential};
use super::permissions::PermissionSet;

/// The rights of a credential when it made its request; stored beside the response.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerRights {
    /// `None` for the user in person.
    api_key_id: Option<Uuid>,
    permissions: PermissionSet,
    /// Whether it may act for others: an administrator in person, or a key with `on_behalf`.
    acts_for_others: bool,
    /// The lineages of keys that its use counts against.
    lineages: BTreeSet<Uuid>,
    /// Those of them that have limits.
    limited: BTreeSet<Uuid>,
    expires_at: Option<DateTime<Utc>>,
}

impl CallerRights {
    pub fn of(caller: &Caller) -> Self {
        let permissions = caller.grantable();
        let Credential::Key { id, on_behalf, budgets, expires_at, .. } = &caller.credential else {
            return Self { permissions, acts_for_others: caller.is_admin(), ..Self::default() };
        };
        let limited = budgets.iter().filter(|budget| !budget.limits.is_none());
        Self {
            api_key_id: Some(*id),
            permissions,
            acts_for_others: *on_behalf && caller.is_admin(),
            lineages: budgets.iter().map(|budget| budget.lineage_id.0).collect(),
            limited: limited.map(|budget| budget.lineage_id.0).collect(),
            expires_at: *expires_at,
        }
    }

    /// An identity without a profile yet: in person, without any permission.
    pub fn of_newcomer() -> Self {
        Self::default()
    }

    /// Whether they belong to the user in person.
    pub const fn are_a_persons(&self) -> bool {
        self.api_key_id.is_none()
    }

    /// Whether a credential with these rights may receive the response to `stored`. The same key always may. Another
    /// credential may if it has the permissions, no limits but those that also bound the first one, and at least its
    /// lifetime.
    pub fn cover(&self, stored: &Self) -> bool {
        let is_same_key = self.api_key_id.is_some() && self.api_key_id == stored.api_key_id;
        let has_the_permissions = self.permissions.lacks(&stored.permissions).is_none();
        let acts_for_others = self.acts_for_others || !stored.acts_for_others;
        let is_within_limits = self.limited.is_subset(&stored.lineages);
        let lives_as_long =
            self.expires_at.is_none_or(|own| stored.expires_at.is_some_and(|expires_at| expires_at <= own));
        is_same_key || (has_the_permissions && acts_for_others && is_within_limits && lives_as_long)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::api_keys::{ApiKeyId, KeyBudgets, KeyLimits};
    use crate::identity::{Permission, Role};
    use crate::users::UserId;

    fn rights(role: Role, credential: Credential) -> CallerRights {
        CallerRights::of(&Caller { user_id: UserId(Uuid::nil()), role, credential, token: None })
    }

    fn key(id: u128, lineage: u128, limited: bool, permissions: &[Permission]) -> Credential {
        let limits =
            if limited { KeyLimits { requests_per_minute: Some(1), ..KeyLimits::NONE } } else { KeyLimits::NONE };
        Credential::Key {
            id: Uuid::from_u128(id),
            permissions: permissions.iter().copied().collect(),
            on_behalf: false,
            budgets: KeyBudgets::alone(ApiKeyId(Uuid::from_u128(lineage)), limits),
            expires_at: None,
        }
    }

    fn ends_in(credential: Credential, hours: i64) -> Credential {
        let Credential::Key { id, permissions, on_behalf, budgets, .. } = credential else { return credential };
        let expires_at = Some(DateTime::UNIX_EPOCH + TimeDelta::hours(hours));
        Credential::Key { id, permissions, on_behalf, budgets, expires_at }
    }

    #[test]
    fn an_answer_goes_to_whoever_could_have_had_it() {
        use Permission::{KeysManage, UsageWrite};
        let (manage, both) = ([KeysManage], [KeysManage, UsageWrite]);
        let token = || rights(Role::User, Credential::Token);
        let of = |credential| rights(Role::User, credential);
        for (what, asks, stored, is_given) in [
            ("the user to the user", token(), token(), true),
            ("a newcomer's to the user", token(), CallerRights::of_newcomer(), true),
            ("a key's to the user", token(), of(key(1, 1, true, &both)), true),
            ("the user's to a key", of(key(1, 1, false, &both)), token(), false),
            ("an administrator's to who is none now", token(), rights(Role::Admin, Credential::Token), false),
            ("a strong key's to a weak one", of(key(1, 1, false, &manage)), of(key(2, 2, false, &both)), false),
            ("a weak key's to a strong one", of(key(1, 1, false, &both)), of(key(2, 2, false, &manage)), true),
            ("to another limited key", of(key(1, 1, true, &both)), of(key(2, 2, true, &both)), false),
            ("of a free key to a limited one", of(key(1, 1, true, &both)), of(key(2, 2, false, &both)), false),
            ("of a limited key to a free one", of(key(1, 1, false, &both)), of(key(2, 2, true, &both)), true),
            ("to the successor", of(key(2, 1, true, &both)), of(key(1, 1, true, &both)), true),
            ("to the same key with fewer rights", of(key(1, 1, true, &manage)), of(key(1, 1, true, &both)), true),
            ("to a key that ends", of(ends_in(key(1, 1, false, &both), 1)), of(key(2, 2, false, &both)), false),
            ("of one that ends", of(key(1, 1, false, &both)), of(ends_in(key(2, 2, false, &both), 1)), true),
            (
                "to one that ends sooner",
                of(ends_in(key(1, 1, false, &both), 1)),
                of(ends_in(key(2, 2, false, &both), 2)),
                false,
            ),
        ] {
            assert_eq!(asks.cover(&stored), is_given, "{what}");
        }
    }
}
