//! Callers: a user with a profile who makes a request, and what the request may do.

use chrono::{DateTime, TimeDelta, Utc};
use thiserror::Error;
use uuid::Uuid;

use super::permissions::{Permission, PermissionSet, Role};
use crate::api_keys::KeyBudgets;
use crate::users::UserId;

/// How the caller authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// An access token: the user in person.
    Token,
    /// An API key: the user, within the key's permissions, limits and lifetime.
    Key {
        id: Uuid,
        permissions: PermissionSet,
        on_behalf: bool,
        budgets: KeyBudgets,
        expires_at: Option<DateTime<Utc>>,
    },
}

/// A user with a profile who makes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub user_id: UserId,
    pub role: Role,
    pub credential: Credential,
    /// For a caller by access token: the lifetime of the token.
    pub token: Option<TokenLife>,
}

/// The lifetime of an access token. A call that was begun with the token ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenLife {
    /// The session that it belongs to, if it names one.
    pub session_id: Option<Uuid>,
    pub expires_at: DateTime<Utc>,
}

/// How much longer than its token a call may last: clients renew a token when it is about to expire.
const CALL_OUTLIVES_TOKEN: TimeDelta = TimeDelta::seconds(30);

impl TokenLife {
    /// Whether a call that was begun with the token must end.
    pub fn is_over(&self, now: DateTime<Utc>) -> bool {
        now - CALL_OUTLIVES_TOKEN >= self.expires_at
    }
}

/// The user that the request acts on, once that is authorized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageSubject {
    Oneself(UserId),
    Another(UserId),
}

impl UsageSubject {
    pub const fn user_id(self) -> UserId {
        match self {
            Self::Oneself(user_id) | Self::Another(user_id) => user_id,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PermissionMissing {
    #[error("this needs the permission `{0}`")]
    Missing(Permission),
    #[error("this needs the role `admin`")]
    NotAdmin,
    #[error("acting for another user needs `{0}` with `on_behalf`, which an administrator grants")]
    NotOnBehalf(Permission),
}

impl Caller {
    pub fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }

    /// Whether the caller may do this to their own data.
    pub fn may(&self, permission: Permission) -> Result<(), PermissionMissing> {
        let key_allows = match &self.credential {
            Credential::Token => true,
            Credential::Key { permissions, .. } => permissions.allows(permission),
        };
        if key_allows && self.role.permissions().allows(permission) {
            Ok(())
        } else {
            Err(PermissionMissing::Missing(permission))
        }
    }

    /// Whether the caller may do this to all users' data: administrators only, and by key only with the permission.
    pub fn may_administer(&self, permission: Permission) -> Result<(), PermissionMissing> {
        if !self.is_admin() {
            return Err(PermissionMissing::NotAdmin);
        }
        self.may(permission)
    }

    /// The user that a request naming `user_id` acts on. The result does not depend on whether that user exists.
    pub fn acting_for(
        &self,
        user_id: Option<UserId>,
        permission: Permission,
    ) -> Result<UsageSubject, PermissionMissing> {
        self.may(permission)?;
        let Some(other) = user_id.filter(|named| *named != self.user_id) else {
            return Ok(UsageSubject::Oneself(self.user_id));
        };
        if self.may_act_for_others(permission) {
            Ok(UsageSubject::Another(other))
        } else {
            Err(PermissionMissing::NotOnBehalf(permission))
        }
    }

    /// Whether the caller may do this for any user that the request names.
    pub fn may_act_for_others(&self, permission: Permission) -> bool {
        let credential_may = match &self.credential {
            Credential::Token => true,
            Credential::Key { on_behalf, .. } => *on_behalf && permission.can_be_on_behalf(),
        };
        // A key keeps `on_behalf` when its owner is no longer an administrator; the right ends with the role.
        credential_may && self.is_admin() && self.may(permission).is_ok()
    }

    /// All that this caller can grant to a new key: never more than the caller has.
    pub fn grantable(&self) -> PermissionSet {
        match &self.credential {
            Credential::Token => self.role.permissions(),
            Credential::Key { permissions, .. } => permissions.within(&self.role.permissions()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_outlives_its_token_by_half_a_minute() {
        let expires_at = DateTime::UNIX_EPOCH;
        let token = TokenLife { session_id: None, expires_at };
        for (seconds, is_over) in [(-1, false), (0, false), (29, false), (30, true), (3_600, true)] {
            assert_eq!(token.is_over(expires_at + TimeDelta::seconds(seconds)), is_over, "{seconds}");
        }
    }

    fn caller(role: Role, credential: Credential) -> Caller {
        Caller { user_id: UserId(Uuid::from_u128(1)), role, credential, token: None }
    }

    fn key(permissions: &[Permission], on_behalf: bool) -> Credential {
        let permissions = permissions.iter().copied().collect();
        let budgets = KeyBudgets::default();
        Credential::Key { id: Uuid::from_u128(9), permissions, on_behalf, budgets, expires_at: None }
    }

    #[test]
    fn a_key_never_exceeds_its_owner() {
        let user = caller(Role::User, key(&[Permission::All], false));
        assert_eq!(user.may(Permission::PlansWrite), Err(PermissionMissing::Missing(Permission::PlansWrite)));
        assert_eq!(user.may(Permission::UsageWrite), Ok(()));
        assert_eq!(user.grantable().lacks(&PermissionSet::all()), Some(Permission::All));
    }

    #[test]
    fn an_administrators_key_administers_only_with_the_permission() {
        let admin = caller(Role::Admin, key(&[Permission::PlansRead], false));
        assert_eq!(
            admin.may_administer(Permission::PlansWrite),
            Err(PermissionMissing::Missing(Permission::PlansWrite))
        );
        assert_eq!(
            caller(Role::User, Credential::Token).may_administer(Permission::PlansRead),
            Err(PermissionMissing::NotAdmin)
        );
        assert_eq!(caller(Role::Admin, Credential::Token).may_administer(Permission::PlansWrite), Ok(()));
    }

    #[test]
    fn acting_for_another_needs_on_behalf_or_an_administrator() {
        let other = Some(UserId(Uuid::from_u128(2)));
        let check = Permission::UsageCheck;
        assert_eq!(
            caller(Role::User, Credential::Token).acting_for(other, check),
            Err(PermissionMissing::NotOnBehalf(check))
        );
        assert_eq!(
            caller(Role::Admin, key(&[check], false)).acting_for(other, check),
            Err(PermissionMissing::NotOnBehalf(check))
        );
        assert_eq!(
            caller(Role::Admin, key(&[check], true)).acting_for(other, check),
            Ok(UsageSubject::Another(UserId(Uuid::from_u128(2))))
        );
        assert_eq!(
            caller(Role::Admin, Credential::Token).acting_for(other, check),
            Ok(UsageSubject::Another(UserId(Uuid::from_u128(2))))
        );
        assert_eq!(
            caller(Role::User, key(&[check], true)).acting_for(other, Permission::UsageWrite),
            Err(PermissionMissing::Missing(Permission::UsageWrite))
        );
        let demoted = caller(Role::User, key(&[check], true));
        assert_eq!(demoted.acting_for(other, check), Err(PermissionMissing::NotOnBehalf(check)));
        let own = Some(UserId(Uuid::from_u128(1)));
        assert_eq!(
            caller(Role::User, Credential::Token).acting_for(own, check),
            Ok(UsageSubject::Oneself(UserId(Uuid::from_u128(1))))
        );
    }
}
