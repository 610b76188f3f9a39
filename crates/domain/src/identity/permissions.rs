//! Roles, and the permissions of roles and keys.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

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

    /// All permissions of the role; a key of a user in this role can have no more.
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

/// One thing that a key or a role may do. `All` includes every other one.
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
    pub(super) const fn can_be_on_behalf(self) -> bool {
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

    /// The first permission of `wanted` that this set does not allow, if any.
    pub fn lacks(&self, wanted: &Self) -> Option<Permission> {
        wanted.iter().find(|permission| !self.allows(*permission))
    }

    /// The permissions that both sets allow.
    #[must_use]
    pub fn within(&self, other: &Self) -> Self {
        Permission::EVERY.into_iter().filter(|one| self.allows(*one) && other.allows(*one)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_permission_reads_back_from_its_name() {
        for permission in Permission::EVERY {
            assert_eq!(permission.as_str().parse(), Ok(permission));
            assert_eq!(serde_json::to_value(permission).ok(), Some(permission.as_str().into()));
        }
    }
}
