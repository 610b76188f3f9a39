//! Identity: who asks, in which role, and what they may do to themselves and to others.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::users::UserId;

/// The shortest and longest password, in characters (design/security.md). The upper bound keeps one log-in
/// from buying minutes of hashing.
pub const PASSWORD_LENGTH: std::ops::RangeInclusive<usize> = 12..=128;

/// The longest e-mail address that SMTP can carry (RFC 5321, section 4.5.3.1.3).
pub const EMAIL_MAX_LENGTH: usize = 254;

/// An e-mail address, trimmed and in lower case, so that one mailbox is one identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Email(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EmailRefused {
    #[error("an e-mail address has one @ between a name and a domain")]
    Malformed,
    #[error("an e-mail address has at most 254 characters")]
    TooLong,
}

impl Email {
    pub fn parse(text: &str) -> Result<Self, EmailRefused> {
        let text = text.trim();
        if text.len() > EMAIL_MAX_LENGTH {
            return Err(EmailRefused::TooLong);
        }
        let (name, domain) = text.split_once('@').ok_or(EmailRefused::Malformed)?;
        let unfit = |character: char| {
            character.is_whitespace() || character.is_control() || "<>()[],;:\\\"".contains(character)
        };
        let domain_is_dotted = domain.split('.').all(|label| !label.is_empty());
        if name.is_empty() || domain.is_empty() || domain.contains('@') || text.contains(unfit) || !domain_is_dotted {
            return Err(EmailRefused::Malformed);
        }
        Ok(Self(text.to_lowercase()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Email {
    type Error = EmailRefused;

    fn try_from(text: String) -> Result<Self, EmailRefused> {
        Self::parse(&text)
    }
}

impl From<Email> for String {
    fn from(email: Email) -> Self {
        email.0
    }
}

impl fmt::Display for Email {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Whether a password is long enough to be worth guessing and short enough to be hashed.
pub fn password_fits(password: &str) -> bool {
    PASSWORD_LENGTH.contains(&password.chars().count())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Admin,
    User,
}

impl Role {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::User => "user",
        }
    }

    /// Everything that someone in this role may do; a key of theirs can hold no more.
    pub fn permissions(self) -> PermissionSet {
        match self {
            Self::Admin => PermissionSet::all(),
            Self::User => PermissionSet::from_iter([
                Permission::PlansRead,
                Permission::UsageCheck,
                Permission::UsageWrite,
                Permission::AiChat,
                Permission::KeysManage,
                Permission::BillingManage,
                Permission::UsersRead,
                Permission::UsersWrite,
            ]),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is neither `admin` nor `user`")]
pub struct UnknownRole(pub String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        match text {
            "admin" => Ok(Self::Admin),
            "user" => Ok(Self::User),
            other => Err(UnknownRole(other.to_owned())),
        }
    }
}

/// One thing that a key or a role may do (design/api.md). `All` stands for every other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Permission {
    #[serde(rename = "plans:read")]
    PlansRead,
    #[serde(rename = "plans:write")]
    PlansWrite,
    #[serde(rename = "usage:check")]
    UsageCheck,
    #[serde(rename = "usage:write")]
    UsageWrite,
    #[serde(rename = "ai:chat")]
    AiChat,
    #[serde(rename = "keys:manage")]
    KeysManage,
    #[serde(rename = "billing:manage")]
    BillingManage,
    #[serde(rename = "users:read")]
    UsersRead,
    #[serde(rename = "users:write")]
    UsersWrite,
    #[serde(rename = "audit:read")]
    AuditRead,
    #[serde(rename = "*")]
    All,
}

impl Permission {
    pub const EVERY: [Self; 11] = [
        Self::PlansRead,
        Self::PlansWrite,
        Self::UsageCheck,
        Self::UsageWrite,
        Self::AiChat,
        Self::KeysManage,
        Self::BillingManage,
        Self::UsersRead,
        Self::UsersWrite,
        Self::AuditRead,
        Self::All,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PlansRead => "plans:read",
            Self::PlansWrite => "plans:write",
            Self::UsageCheck => "usage:check",
            Self::UsageWrite => "usage:write",
            Self::AiChat => "ai:chat",
            Self::KeysManage => "keys:manage",
            Self::BillingManage => "billing:manage",
            Self::UsersRead => "users:read",
            Self::UsersWrite => "users:write",
            Self::AuditRead => "audit:read",
            Self::All => "*",
        }
    }

    /// The permissions that a key with `on_behalf` may use for a user other than its owner.
    const fn can_be_on_behalf(self) -> bool {
        matches!(self, Self::UsageCheck | Self::UsageWrite | Self::UsersWrite)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not a permission")]
pub struct UnknownPermission(pub String);

impl FromStr for Permission {
    type Err = UnknownPermission;

    fn from_str(text: &str) -> Result<Self, UnknownPermission> {
        Self::EVERY
            .into_iter()
            .find(|permission| permission.as_str() == text)
            .ok_or_else(|| UnknownPermission(text.to_owned()))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PermissionSet(BTreeSet<Permission>);

impl PermissionSet {
    pub fn all() -> Self {
        Self::from_iter([Permission::All])
    }

    pub fn allows(&self, permission: Permission) -> bool {
        self.0.contains(&Permission::All) || self.0.contains(&permission)
    }

    /// The first permission of `wanted` that this set does not allow, if there is one.
    pub fn lacks(&self, wanted: &Self) -> Option<Permission> {
        wanted.iter().find(|permission| !self.allows(*permission))
    }

    pub fn iter(&self) -> impl Iterator<Item = Permission> + '_ {
        self.0.iter().copied()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Permission> for PermissionSet {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self(permissions.into_iter().collect())
    }
}

/// By what the caller showed who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// An access token: the user in person.
    Token,
    /// An API key: the user, within the key's permissions.
    Key { id: Uuid, permissions: PermissionSet, on_behalf: bool },
}

/// Someone with a profile who asks for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub user_id: UserId,
    pub role: Role,
    pub credential: Credential,
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
        let may = match &self.credential {
            Credential::Token => self.is_admin(),
            Credential::Key { on_behalf, .. } => *on_behalf && permission.can_be_on_behalf(),
        };
        if may { Ok(Subject::Another(other)) } else { Err(Forbidden::NotOnBehalf(permission)) }
    }

    /// All that a key made by this caller can be given: never more than the caller holds.
    pub fn grantable(&self) -> PermissionSet {
        match &self.credential {
            Credential::Token => self.role.permissions(),
            Credential::Key { permissions, .. } => Permission::EVERY
                .into_iter()
                .filter(|one| permissions.allows(*one) && self.role.permissions().allows(*one))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(role: Role, credential: Credential) -> Caller {
        Caller { user_id: UserId(Uuid::from_u128(1)), role, credential }
    }

    fn key(permissions: &[Permission], on_behalf: bool) -> Credential {
        Credential::Key { id: Uuid::from_u128(9), permissions: permissions.iter().copied().collect(), on_behalf }
    }

    #[test]
    fn an_email_is_trimmed_and_lower_case() {
        assert_eq!(Email::parse("  Ada@Example.COM ").map(String::from), Ok("ada@example.com".to_owned()));
        for bad in ["", "ada", "@example.com", "ada@", "a@b@c", "a b@c.d", "a@b..c", "a\u{0}@b.c", "a@.c"] {
            assert_eq!(Email::parse(bad), Err(EmailRefused::Malformed), "{bad:?}");
        }
        assert_eq!(Email::parse(&format!("{}@example.com", "a".repeat(250))), Err(EmailRefused::TooLong));
    }

    #[test]
    fn every_permission_reads_back_from_its_name() {
        for permission in Permission::EVERY {
            assert_eq!(permission.as_str().parse(), Ok(permission));
            assert_eq!(serde_json::to_value(permission).ok(), Some(permission.as_str().into()));
        }
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
            caller(Role::User, key(&[check], false)).acting_for(other, check),
            Err(Forbidden::NotOnBehalf(check))
        );
        assert_eq!(
            caller(Role::User, key(&[check], true)).acting_for(other, check),
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
        let own = Some(UserId(Uuid::from_u128(1)));
        assert_eq!(
            caller(Role::User, Credential::Token).acting_for(own, check),
            Ok(Subject::Oneself(UserId(Uuid::from_u128(1))))
        );
    }
}
