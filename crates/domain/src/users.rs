//! Users: the profile that belongs to an identity.

mod keccak;
mod wallets;

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::identity::{Role, StoredEmail};
use crate::plans::PlanId;

pub use wallets::{WalletRefused, check_wallet};

/// The id of a user: the same value as the identity's (`auth.users.id`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserId(pub Uuid);

impl fmt::Display for UserId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A profile as it is stored. The e-mail address belongs to the identity and is read with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub email: Option<StoredEmail>,
    pub name: String,
    pub role: Role,
    pub plan_id: PlanId,
    pub wallet_address: Option<String>,
    pub token_balance: i64,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// The initial values of a profile; plan, balance and times are the database's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUser {
    pub id: UserId,
    pub name: String,
    pub role: Role,
}

/// The fields that a user may change. `None` keeps a field; the wallet can also be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserChanges {
    pub name: Option<String>,
    pub wallet_address: Option<Option<String>>,
}
