//! Callers: someone with a profile who asks, and what they may do.

use chrono::{DateTime, TimeDelta, Utc};
use thiserror::Error;
use uuid::Uuid;

use super::permissions::{Permission, PermissionSet, Role};
use crate::api_keys::KeyBudgets;
use crate::users::UserId;

/// By what the caller showed who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// An access token: the user in person.
    Token,
    /// An API key: the user, within the key's permissions, limits and life.
    Key {
        id: Uuid,
        permissions: PermissionSet,
        on_behalf: bool,
        budgets: KeyBudgets,
        expires_at: Option<DateTime<Utc>>,
    },
}

/// Someone with a profile who asks for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub user_id: UserId,
    pub role: Role,
    pub credential: Credential,
    /// Of a caller by access token: how long the token's right lasts.
    pub token: Option<TokenLife>,
}

/// How long an access token speaks for its user. A call that it began ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenLife {
    /// The log-in that it belongs to, where it names one.
    pub session_id: Option<Uuid>,
    pub expires_at: DateTime<Utc>,
}

/// How much longer than its token a call may last that was begun by it: clients renew a token when it is about to expire.
const CALL_OUTLIVES_TOKEN: TimeDelta = TimeDelta::seconds(30);

impl TokenLife {
    /// Whether a call that the token began has to end.
    pub fn is_over(&self, now: DateTime<Utc>) -> bool {
        now - CALL_OUTLIVES_TOKEN >= self.expires_at
    }
}

/// On whom the caller wants to act, and that they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Oneself(UserId),
    Another(UserId),
}

impl Subject {
    pub const fn user_id(self) -> UserId {
        match self {
            Self::Oneself(user_id) | Self::Another(user_id) => user_id,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Forbidden {
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

    /// Whether the caller may do this to what is their own.
    pub fn may(&self, permission: Permission) -> Result<(), Forbidden> {
        let key_allows = match &self.credential {
            Credential::Token => true,
            Credential::Key { permissions, .. } => permissions.allows(permission),
        };
        if key_allows && self.role.permissions().allows(permission) {
            Ok(())
        } else {
            Err(Forbidden::Missing(permission))
        }
    }

    /// Whether the caller may do this to everybody's: administrators only, and by key only with the permission.
    pub fn may_administer(&self, permission: Permission) -> Result<(), Forbidden> {
        if !self.is_admin() {
            return Err(Forbidden::NotAdmin);
        }
        self.may(permission)
    }

    /// On whom the caller acts if they name `user_id`. The answer does not depend on whether that user exists.
    pub fn acting_for(&self, user_id: Option<UserId>, permission: Permission) -> Result<Subject, Forbidden> {
        self.may(permission)?;
        let Some(other) = user_id.filter(|named| *named != self.user_id) else {
            return Ok(Subject::Oneself(self.user_id));
        };
        if self.may_act_for_others(permission) {
            Ok(Subject::Another(other))
        } else {
            Err(Forbidden::NotOnBehalf(permission))
        }
    }

    /// Whether the caller may do this for whomever they name.
    pub fn may_act_for_others(&self, permission: Permission) -> bool {
        let credential_may = match &self.credential {
            Credential::Token => true,
            Credential::Key { on_behalf, .. } => *on_behalf && permission.can_be_on_behalf(),
        };
        // A key keeps `on_behalf` when its owner is no administrator any more; the right ends with the role.
        credential_may && self.is_admin() && self.may(permission).is_ok()
    }

    /// All that a key made by this caller can be given: never more than the caller holds.
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
        assert_eq!(user.may(Permission::PlansWrite), Err(Forbidden::Missing(Permission::PlansWrite)));
        assert_eq!(user.may(Permission::UsageWrite), Ok(()));
        assert_eq!(user.grantable().lacks(&PermissionSet::all()), Some(Permission::All));
    }

    #[test]
    fn an_administrators_key_administers_only_with_the_permission() {
        let admin = caller(Role::Admin, key(&[Permission::PlansRead], false));
        assert_eq!(admin.may_administer(Permission::PlansWrite), Err(Forbidden::Missing(Permission::PlansWrite)));
        assert_eq!(
            caller(Role::User, Credential::Token).may_administer(Permission::PlansRead),
            Err(Forbidden::NotAdmin)
        );
        assert_eq!(caller(Role::Admin, Credential::Token).may_administer(Permission::PlansWrite), Ok(()));
    }

    #[test]
    fn acting_for_another_needs_on_behalf_or_an_administrator() {
        let other = Some(UserId(Uuid::from_u128(2)));
        let check = Permission::UsageCheck;
        assert_eq!(caller(Role::User, Credential::Token).acting_for(other, check), Err(Forbidden::NotOnBehalf(check)));
        assert_eq!(
            caller(Role::Admin, key(&[check], false)).acting_for(other, check),
            Err(Forbidden::NotOnBehalf(check))
        );
        assert_eq!(
            caller(Role::Admin, key(&[check], true)).acting_for(other, check),
            Ok(Subject::Another(UserId(Uuid::from_u128(2))))
        );
        assert_eq!(
            caller(Role::Admin, Credential::Token).acting_for(other, check),
            Ok(Subject::Another(UserId(Uuid::from_u128(2))))
        );
        assert_eq!(
            caller(Role::User, key(&[check], true)).acting_for(other, Permission::UsageWrite),
            Err(Forbidden::Missing(Permission::UsageWrite))
        );
        let demoted = caller(Role::User, key(&[check], true));
        assert_eq!(demoted.acting_for(other, check), Err(Forbidden::NotOnBehalf(check)));
        let own = Some(UserId(Uuid::from_u128(1)));
        assert_eq!(
            caller(Role::User, Credential::Token).acting_for(own, check),
            Ok(Subject::Oneself(UserId(Uuid::from_u128(1))))
        );
    }
}
